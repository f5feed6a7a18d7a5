package main

import (
	"context"
	"testing"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, text := range []string{"", "fuse", `{"name": "fuse"}`, `{"name": "fuse", "groups": [{"usb": []}]}`} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestEachDeviceGivesAllPathsOfItsGroup(t *testing.T) {
	wanted, err := parse(`{"name": "fuse", "groups": [{"count": 2, "paths": [{"path": "/dev/null"}, {"path": "/dev/zero"}]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	made := newPlugin(wanted)
	if len(made.devices) != 2 {
		t.Fatalf("%d devices", len(made.devices))
	}
	request := &api.ContainerAllocateRequest{DevicesIds: []string{made.devices[1].ID}}
	answer, err := made.Allocate(context.Background(), &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{request},
	})
	if err != nil {
		t.Fatal(err)
	}
	given := answer.ContainerResponses[0].Devices
	if len(given) != 2 || given[0].HostPath != "/dev/null" || given[1].ContainerPath != "/dev/zero" {
		t.Errorf("given: %v", given)
	}
	request.DevicesIds = []string{"other"}
	if _, err := made.Allocate(context.Background(), &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{request},
	}); err == nil {
		t.Error("a device that is not offered was given")
	}
}

func TestAMissingDeviceIsNotOffered(t *testing.T) {
	wanted, err := parse(`{"name": "fuse", "groups": [{"count": 2, "paths": [{"path": "/dev/absent"}]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if made := newPlugin(wanted); len(made.devices) != 0 {
		t.Errorf("%d devices", len(made.devices))
	}
}
