// Command cert-manager is the four programs of cert-manager in one binary, each under the name that its image has.
//
// The program is the name it is called by (a link to it) or, called by any other name, its first argument:
// cert-manager webhook --v=2 equals webhook --v=2
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	acmesolver "github.com/cert-manager/cert-manager/cmd/acmesolver/app"
	cainjector "github.com/cert-manager/cert-manager/cmd/cainjector/app"
	controller "github.com/cert-manager/cert-manager/cmd/controller/app"
	"github.com/cert-manager/cert-manager/cmd/util"
	webhook "github.com/cert-manager/cert-manager/cmd/webhook/app"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
)

// programs makes the command of each program. A function per name, because building a command registers flags and
// metrics, which only one program per process may do.
var programs = map[string]func(<-chan struct{}) *cobra.Command{
	"acmesolver": acmesolver.NewACMESolverCommand,
	"cainjector": func(stop <-chan struct{}) *cobra.Command {
		ctrl.SetLogger(logf.Log)
		return cainjector.NewCommandStartInjectorController(
			util.ContextWithStopCh(context.Background(), stop), os.Stdout, os.Stderr)
	},
	"controller": controller.NewCommandStartCertManagerController,
	"webhook":    webhook.NewServerCommand,
}

// choose returns the program that the arguments of a process name and the arguments that are left for it.
// ok is false when neither the program's name nor the first argument names one.
func choose(args []string) (name string, rest []string, ok bool) {
	if len(args) == 0 {
		return "", nil, false
	}
	if name = filepath.Base(args[0]); programs[name] != nil {
		return name, args[1:], true
	}
	if len(args) > 1 && programs[args[1]] != nil {
		return args[1], args[2:], true
	}
	return "", nil, false
}

func names() string {
	list := make([]string, 0, len(programs))
	for name := range programs {
		list = append(list, name)
	}
	sort.Strings(list)
	return strings.Join(list, ", ")
}

func main() {
	name, rest, ok := choose(os.Args)
	if !ok {
		fmt.Fprintf(os.Stderr, "cert-manager: name one of %s as the first argument\n", names())
		os.Exit(2)
	}
	os.Args = append([]string{name}, rest...)
	stop, exit := util.SetupExitHandler(util.GracefulShutdown)
	defer exit() // may end the process, so it is deferred first and runs last
	if name != "acmesolver" {
		logf.InitLogs(flag.CommandLine)
		defer logf.FlushLogs()
	}
	command := programs[name](stop)
	if name != "acmesolver" {
		command.Flags().AddGoFlagSet(flag.CommandLine)
		if err := flag.CommandLine.Parse([]string{}); err != nil {
			util.SetExitCode(err)
			return
		}
	}
	if err := command.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		util.SetExitCode(err)
	}
}
