package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/spf13/cobra"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// netpolOptions is what the network policy controller has to be told about its node and cluster.
type netpolOptions struct {
	kubeconfig    string
	nodeName      string
	serviceCIDR   string
	nodePortRange string
	syncPeriod    time.Duration
}

// newNetpolCommand is kube-router's network policy controller alone, which is what k3s embeds of kube-router.
func newNetpolCommand() *cobra.Command {
	o := netpolOptions{}
	command := &cobra.Command{
		Use:           "netpol",
		Short:         "Enforce NetworkPolicies on this node with kube-router's controller",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: false,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runNetpol(ctx, o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file to reach the API with (required)")
	flags.StringVar(&o.nodeName, "node-name", "", "name of this node in the API (required)")
	flags.StringVar(&o.serviceCIDR, "service-cluster-ip-range", "10.43.0.0/16", "range of the cluster's Service addresses")
	flags.StringVar(&o.nodePortRange, "service-node-port-range", "30000-32767", "range of the cluster's node ports")
	flags.DurationVar(&o.syncPeriod, "iptables-sync-period", 5*time.Minute, "time between two full synchronisations")
	for _, name := range []string{"kubeconfig", "node-name"} {
		if err := command.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return command
}

// config is o in kube-router's terms, IPv4 only as the bed is.
func (o netpolOptions) config() *options.KubeRouterConfig {
	config := options.NewKubeRouterConfig()
	config.RunFirewall = true
	config.EnableIPv4 = true
	config.EnableIPv6 = false
	config.ClusterIPCIDRs = []string{o.serviceCIDR}
	config.NodePortRange = o.nodePortRange
	config.IPTablesSyncPeriod = o.syncPeriod
	config.HostnameOverride = o.nodeName
	return config
}

// runNetpol enforces policies until ctx ends; the rules stay in the kernel then, so that a restart opens nothing.
func runNetpol(ctx context.Context, o netpolOptions) error {
	rest, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("read --kubeconfig %s: %w", o.kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return fmt.Errorf("make a client from --kubeconfig %s: %w", o.kubeconfig, err)
	}
	// kube-router takes NODE_NAME before the host's own name, and the host's name before its option.
	if err := os.Setenv("NODE_NAME", o.nodeName); err != nil {
		return err
	}
	config := o.config()
	commands, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return fmt.Errorf("find iptables and ipset on this node: %w", err)
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	var controller *netpol.NetworkPolicyController
	var ipsets sync.Mutex
	for {
		controller, err = netpol.NewNetworkPolicyController(
			client, config, pods, policies, namespaces, &ipsets, commands, sets)
		if err == nil {
			break
		}
		// The node registers itself a moment after this starts, and has no address before.
		klog.Infof("waiting for node %s to register with an address: %v", o.nodeName, err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	for _, watch := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{pods, controller.PodEventHandler},
		{policies, controller.NetworkPolicyEventHandler},
		{namespaces, controller.NamespaceEventHandler},
	} {
		if _, err := watch.informer.AddEventHandler(watch.handler); err != nil {
			return fmt.Errorf("watch the API: %w", err)
		}
	}

	// The controller blocks on its heartbeats unless somebody takes them.
	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for {
			select {
			case <-beats:
			case <-ctx.Done():
				return
			}
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(beats, ctx.Done(), &running)
	<-ctx.Done()
	// Not waited for: the rules in the kernel are complete after each step of it.
	return nil
}
