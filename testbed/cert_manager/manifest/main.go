// Command manifest writes the cert-manager.yaml of a release: the chart in the release's own sources, rendered with the
// settings that its makefile (make/manifests.mk) gives to `helm template`, by Helm's own engine.
//
// manifest DIRECTORY VERSION: DIRECTORY holds the sources of cert-manager. Written to standard output: the Namespace, the
// CRDs, then everything else.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
)

// values is what both generations of the makefile set: the older ones read installCRDs, the newer ones crds.enabled, and
// a chart with a schema refuses the one that it does not know.
func values(modern bool) map[string]any {
	set := map[string]any{"creator": "static", "startupapicheck": map[string]any{"enabled": false}}
	if modern {
		set["crds"] = map[string]any{"enabled": true}
	} else {
		set["installCRDs"] = true
	}
	return set
}

// load reads the chart, with the CRDs among its templates where the release's makefile puts them there.
func load(source, version string) (*chart.Chart, bool, error) {
	folder := filepath.Join(source, "deploy", "charts", "cert-manager")
	var files []*loader.BufferedFile
	add := func(name, path string) error {
		data, err := os.ReadFile(path)
		if err == nil {
			files = append(files, &loader.BufferedFile{Name: name, Data: data})
		}
		return err
	}
	about := filepath.Join(folder, "Chart.yaml")
	if _, err := os.Stat(about); errors.Is(err, os.ErrNotExist) {
		about = filepath.Join(folder, "Chart.template.yaml")
	}
	if err := errors.Join(add("Chart.yaml", about), add("values.yaml", filepath.Join(folder, "values.yaml"))); err != nil {
		return nil, false, err
	}
	templates, err := filepath.Glob(filepath.Join(folder, "templates", "*"))
	if err != nil {
		return nil, false, err
	}
	modern := false
	for _, path := range templates {
		name := filepath.Base(path)
		modern = modern || strings.HasPrefix(name, "crd-")
		if name == "NOTES.txt" {
			continue
		}
		if err := add("templates/"+name, path); err != nil {
			return nil, false, err
		}
	}
	if !modern {
		crds, err := filepath.Glob(filepath.Join(source, "deploy", "crds", "*.yaml"))
		if err != nil {
			return nil, false, err
		}
		for _, path := range crds {
			if err := add("templates/"+filepath.Base(path), path); err != nil {
				return nil, false, err
			}
		}
	}
	made, err := loader.LoadFiles(files)
	if err != nil {
		return nil, false, err
	}
	made.Metadata.Version, made.Metadata.AppVersion = version, version
	return made, modern, nil
}

// render returns the documents: CRDs first, then the others in the order in which Helm installs them.
func render(source, version string) ([]string, error) {
	made, modern, err := load(source, version)
	if err != nil {
		return nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.29.0", Major: "1", Minor: "29"}
	release := chartutil.ReleaseOptions{Name: "cert-manager", Namespace: "cert-manager", Revision: 1, IsInstall: true}
	context, err := chartutil.ToRenderValues(made, values(modern), release, capabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(made, context)
	if err != nil {
		return nil, err
	}
	_, manifests, err := releaseutil.SortManifests(rendered, capabilities.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	sort.SliceStable(manifests, func(i, j int) bool { return isCRD(manifests[i]) && !isCRD(manifests[j]) })
	documents := []string{}
	for _, manifest := range manifests {
		documents = append(documents, strings.TrimSpace(manifest.Content))
	}
	return documents, nil
}

func isCRD(manifest releaseutil.Manifest) bool {
	return manifest.Head.Kind == "CustomResourceDefinition"
}

var version = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)

func main() {
	if len(os.Args) != 3 || !version.MatchString(os.Args[2]) {
		fmt.Fprintln(os.Stderr, "manifest: give the directory of cert-manager's sources and the version, as v1.11.5")
		os.Exit(2)
	}
	namespace, err := os.ReadFile(filepath.Join(os.Args[1], "deploy", "manifests", "namespace.yaml"))
	if err == nil {
		var documents []string
		if documents, err = render(os.Args[1], os.Args[2]); err == nil {
			first := strings.Trim(strings.TrimSpace(string(namespace)), "-\n")
			fmt.Println("---\n" + strings.Join(append([]string{first}, documents...), "\n---\n"))
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "manifest: %s\n", err)
		os.Exit(1)
	}
}
