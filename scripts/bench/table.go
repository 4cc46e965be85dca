package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// median is the middle one of the values, or the mean of the two in the middle.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// table prints the medians of the rounds, a row per workload and target.
func table(w io.Writer, opt options, all []result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\nmedian of %d rounds, %v each; CPU is that of all the target's processes\n\n", opt.rounds, opt.seconds)
	fmt.Fprintln(tw, "workload\ttarget\tIOPS\tMB/s\tp50 µs\tp99 µs\tCPU µs/IO\tIOPS/CPU-s\tgenerator µs/IO\tby role\t")
	for _, wl := range opt.workloads {
		for _, name := range opt.targets {
			var rs []result
			for _, r := range all {
				if r.Workload == wl.name && r.Target == name {
					rs = append(rs, r)
				}
			}
			col := func(f func(result) float64) float64 {
				var v []float64
				for _, r := range rs {
					v = append(v, f(r))
				}
				return median(v)
			}
			fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.1f\t%.0f\t%.0f\t%.1f\t%.0f\t%.1f\t%s\t\n", wl.name, name,
				col(func(r result) float64 { return r.IOPS }), col(func(r result) float64 { return r.MBps }),
				col(func(r result) float64 { return r.P50Micros }), col(func(r result) float64 { return r.P99Micros }),
				col(func(r result) float64 { return r.CPUMicros }), col(result.perCPUSecond), col(func(r result) float64 { return r.OwnMicros }),
				roles(rs, col))
		}
	}
	return tw.Flush()
}

// perCPUSecond is how many commands a second of the target's processor time does.
func (r result) perCPUSecond() float64 {
	if r.CPUMicros == 0 {
		return 0
	}
	return 1e6 / r.CPUMicros
}

// roles prints the CPU of each role when there is more than one.
func roles(rs []result, col func(func(result) float64) float64) string {
	if len(rs) == 0 || len(rs[0].RoleMicros) < 2 {
		return ""
	}
	var names []string
	for role := range rs[0].RoleMicros {
		names = append(names, role)
	}
	slices.Sort(names)
	var out []string
	for _, role := range names {
		if v := col(func(r result) float64 { return r.RoleMicros[role] }); v >= 1 {
			out = append(out, fmt.Sprintf("%s %.0f", role, v))
		}
	}
	return strings.Join(out, ", ")
}
