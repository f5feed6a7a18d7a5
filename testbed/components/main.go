// Command kubernetes is every Kubernetes component that the stand-in for k3s runs, in one binary, as k3s has them.
//
// The component is the name the program is called by (a link to it) or, called by any other name, its first argument:
// kubernetes kubelet --config=... equals kubelet --config=...
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components makes the command of each component. A function per name, because building a command registers flags and
// metrics, which only one component per process may do.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	// The kubelet sets up its own signal context: one of ours would close the same channel twice.
	"kubelet": func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kubectl": kubectl.NewDefaultKubectlCommand,
	"netpol":  newNetpolCommand,
}

// choose returns the component that the arguments of a process name and the arguments that are left for it.
// ok is false when neither the program's name nor the first argument names one.
func choose(args []string) (name string, rest []string, ok bool) {
	if len(args) == 0 {
		return "", nil, false
	}
	if name = filepath.Base(args[0]); components[name] != nil {
		return name, args[1:], true
	}
	if len(args) > 1 && components[args[1]] != nil {
		return args[1], args[2:], true
	}
	return "", nil, false
}

func names() string {
	list := make([]string, 0, len(components))
	for name := range components {
		list = append(list, name)
	}
	sort.Strings(list)
	return strings.Join(list, ", ")
}

func main() {
	name, rest, ok := choose(os.Args)
	if !ok {
		fmt.Fprintf(os.Stderr, "name a component, as the program's name or its first argument: %s\n", names())
		os.Exit(2)
	}
	os.Args = append([]string{name}, rest...) // kubectl and the version flag read it
	command := components[name]()
	if name == "kubectl" {
		if err := cli.RunNoErrOutput(command); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(cli.Run(command))
}
