package main
import "github.com/spf13/cobra"
func newNetpolCommand() *cobra.Command { return nil }
