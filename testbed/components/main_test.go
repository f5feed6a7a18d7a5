package main

import (
	"reflect"
	"testing"
)

func TestChooseByNameOrFirstArgument(t *testing.T) {
	for _, test := range []struct {
		args []string
		name string
		rest []string
		ok   bool
	}{
		{[]string{"/opt/bin/kubelet", "--version"}, "kubelet", []string{"--version"}, true},
		{[]string{"kubernetes", "kubectl", "get", "nodes"}, "kubectl", []string{"get", "nodes"}, true},
		{[]string{"kubectl", "kubelet"}, "kubectl", []string{"kubelet"}, true},
		{[]string{"kubernetes"}, "", nil, false},
		{[]string{"kubernetes", "etcd"}, "", nil, false},
		{nil, "", nil, false},
	} {
		name, rest, ok := choose(test.args)
		if name != test.name || ok != test.ok || len(rest) != len(test.rest) ||
			(len(rest) > 0 && !reflect.DeepEqual(rest, test.rest)) {
			t.Errorf("choose(%q) = %q %q %v, want %q %q %v", test.args, name, rest, ok, test.name, test.rest, test.ok)
		}
	}
}

func TestNetpolKnowsItsClusterByFlags(t *testing.T) {
	command := newNetpolCommand()
	if err := command.ParseFlags([]string{"--kubeconfig", "/k", "--node-name", "n", "--iptables-sync-period", "1m"}); err != nil {
		t.Fatal(err)
	}
	config := netpolOptions{serviceCIDR: "10.43.0.0/16", nodeName: "n"}.config()
	if config.EnableIPv6 || !config.EnableIPv4 || config.ClusterIPCIDRs[0] != "10.43.0.0/16" || config.HostnameOverride != "n" {
		t.Errorf("config() = %+v", config)
	}
}
