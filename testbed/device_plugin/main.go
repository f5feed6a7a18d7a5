// Command generic-device-plugin offers one device group to the kubelet: the part of generic-device-plugin that the role
// fuse uses, under its name and with its flags, since no package registry carries the real one.
//
// In Go because the kubelet's device plugin protocol is gRPC whose messages Kubernetes publishes as a Go module.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// spec is one --device: its name after the domain, and groups of which every device gives all paths.
type spec struct {
	Name   string `json:"name"`
	Groups []struct {
		Count uint `json:"count"`
		Paths []struct {
			Path string `json:"path"`
		} `json:"paths"`
	} `json:"groups"`
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices []*api.Device
	paths   map[string][]*api.DeviceSpec // device's ID: what a container gets with it
	gone    chan struct{}                // closed at the end, so that the kubelet's watch ends
}

// parse reads a --device. Unknown keys are refused: the real program may mean something by them.
func parse(text string) (spec, error) {
	var wanted spec
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return spec{}, fmt.Errorf("--device %s: %w", text, err)
	}
	if wanted.Name == "" || len(wanted.Groups) == 0 {
		return spec{}, fmt.Errorf("--device %s: it needs a name and groups", text)
	}
	return wanted, nil
}

// newPlugin counts out the devices whose paths exist.
func newPlugin(wanted spec) *plugin {
	made := &plugin{paths: map[string][]*api.DeviceSpec{}, gone: make(chan struct{})}
	for index, group := range wanted.Groups {
		var paths []*api.DeviceSpec
		for _, path := range group.Paths {
			if _, err := os.Stat(path.Path); err != nil {
				log.Printf("%s is not offered: %v", path.Path, err)
				paths = nil
				break
			}
			paths = append(paths, &api.DeviceSpec{ContainerPath: path.Path, HostPath: path.Path, Permissions: "mrw"})
		}
		for number := uint(0); paths != nil && number < max(group.Count, 1); number++ {
			id := strconv.Itoa(index) + "-" + strconv.FormatUint(uint64(number), 10)
			made.devices = append(made.devices, &api.Device{ID: id, Health: api.Healthy})
			made.paths[id] = paths
		}
	}
	return made
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	if err := stream.Send(&api.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	select {
	case <-p.gone:
	case <-stream.Context().Done():
	}
	return nil
}

func (p *plugin) Allocate(_ context.Context, asked *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		given := &api.ContainerAllocateResponse{}
		for _, id := range container.DevicesIds {
			if p.paths[id] == nil {
				return nil, fmt.Errorf("device %s is not known", id)
			}
			given.Devices = append(given.Devices, p.paths[id]...)
		}
		answer.ContainerResponses = append(answer.ContainerResponses, given)
	}
	return answer, nil
}

// serve offers the devices until the kubelet starts anew, which shows in its removing the plugin's socket.
func serve(wanted spec, domain, directory string) error {
	socket := filepath.Join(directory, "gdp-"+wanted.Name+".sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	made, server := newPlugin(wanted), grpc.NewServer()
	api.RegisterDevicePluginServer(server, made)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	defer close(made.gone)

	connection, err := grpc.NewClient(
		"unix://"+filepath.Join(directory, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request := &api.RegisterRequest{
		Version: api.Version, Endpoint: filepath.Base(socket), ResourceName: domain + "/" + wanted.Name,
	}
	if _, err := api.NewRegistrationClient(connection).Register(ctx, request); err != nil {
		return fmt.Errorf("registering with the kubelet: %w", err)
	}
	log.Printf("%d devices of %s", len(made.devices), request.ResourceName)
	for {
		time.Sleep(time.Second)
		if _, err := os.Stat(socket); err != nil {
			log.Printf("the kubelet started anew: %v", err)
			return nil
		}
	}
}

func main() {
	domain := flag.String("domain", "squat.ai", "domain of the resource's name")
	device := flag.String("device", "", `{"name": ..., "groups": [{"count": ..., "paths": [{"path": ...}]}]}`)
	directory := flag.String("plugin-directory", api.DevicePluginPath, "where the kubelet's sockets are")
	flag.Parse()
	wanted, err := parse(*device)
	if err != nil {
		log.Fatal(err)
	}
	for {
		if err := serve(wanted, *domain, *directory); err != nil {
			log.Fatal(err)
		}
	}
}
