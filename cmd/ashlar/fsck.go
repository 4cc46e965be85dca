package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-storage/ashlar/chunkserver"
)

const (
	// exitFindings is the exit status of a check that found something, exitUnchecked of one that could not be done.
	exitFindings  = 1
	exitUnchecked = 2
	// progressEvery is how often a long check says how far it is.
	progressEvery = 5 * time.Second
)

// exitError is an error with an exit status of its own.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// newFsck is the verb that checks the data directory of a chunkserver.
func newFsck() *cobra.Command {
	var output string
	var data, noData bool
	c := &cobra.Command{
		Use:   "fsck DIR",
		Short: "Check the data directory of a chunkserver that is stopped; nothing is changed",
		Long: "Checks who the directory is, every record of the raft log, whether the index and the data file agree about the blocks in use,\n" +
			"and every block's checksum. The exit status is 0 when all is well, 1 when something was found, 2 when it could not check:\n" +
			"the directory is in use, is none of a chunkserver, may not be read, or was written by a newer release. It may lie on a file\n" +
			"system that is mounted to be read only. Nothing is repaired: a chunkserver\n" +
			"repairs damaged blocks from other replicas (ashlar chunkserver scrub), and peers with other damage are to be replaced\n" +
			"(ashlar copyset replace-peer).",
		Args: func(c *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(c, args); err != nil {
				return &exitError{exitUnchecked, err}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			unchecked := func(err error) error { return &exitError{exitUnchecked, err} }
			if output != "table" && output != "json" {
				return unchecked(fmt.Errorf("-o %q: choose table or json", output))
			}
			r, err := chunkserver.Fsck(c.Context(), filepath.Clean(args[0]), data && !noData, progressOn(c.ErrOrStderr()))
			if err != nil {
				return unchecked(err)
			}
			if err := printFsck(c.OutOrStdout(), r, output == "json"); err != nil {
				return unchecked(err)
			}
			if r.Total > 0 {
				return &exitError{exitFindings, errors.New("the check found damage")}
			}
			return nil
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUnchecked, err} })
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.Flags().BoolVar(&data, "data", true, "read all blocks and compare them with their checksums")
	c.Flags().BoolVar(&noData, "no-data", false, "the same as --data=false")
	return c
}

// progressOn says on w now and then how much was read.
func progressOn(w io.Writer) func(done, total int64) {
	last := time.Now()
	return func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= progressEvery && total > 0 {
			last = now
			_, _ = fmt.Fprintf(w, "%d of %d MiB read (%d%%)\n", done>>20, total>>20, 100*done/total)
		}
	}
}

func printFsck(w io.Writer, r *chunkserver.FsckReport, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	if more := r.Total - len(r.Findings); more > 0 {
		if _, err := fmt.Fprintf(w, "and %d more\n", more); err != nil {
			return err
		}
	}
	result := "clean"
	if r.Total > 0 {
		result = fmt.Sprintf("%d findings", r.Total)
	}
	_, err := fmt.Fprintf(w, "chunkserver %d: %d copysets, %d blocks and %d of the log, %d verified, %d log segments: %s\n",
		r.Chunkserver, r.Copysets, r.Blocks, r.Sideloaded, r.Verified, r.Segments, result)
	return err
}
