package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the names of environment variables: key "raft.tick" is ASHLAR_RAFT_TICK.
const envPrefix = "ASHLAR"

// loadConfig fills cfg, a pointer to a daemon's configuration with its defaults: from the file (if path is not empty),
// over it the environment, over both the flags that were given. An unknown key of the file is refused with its line.
func loadConfig(cfg any, path string, flags *pflag.FlagSet) error {
	defaults, err := toMap(cfg)
	if err != nil {
		return err
	}
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_", "-", "_"))
	v.AutomaticEnv()
	for key, value := range flatten("", defaults) {
		v.SetDefault(key, value)
	}
	if path != "" {
		if err := mergeFile(v, defaults, path); err != nil {
			return err
		}
	}
	if flags != nil {
		flags.VisitAll(func(f *pflag.Flag) {
			if _, ok := lookup(defaults, f.Name); ok && f.Changed && err == nil {
				err = v.BindPFlag(f.Name, f)
			}
		})
		if err != nil {
			return err
		}
	}
	err = v.UnmarshalExact(cfg, func(c *mapstructure.DecoderConfig) {
		c.TagName = configTag
		c.ZeroFields = true
		c.DecodeHook = mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(","))
	})
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// configTag is the struct tag that names a field's key.
const configTag = "yaml"

func mergeFile(v *viper.Viper, known map[string]any, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	if err := checkKeys(path, "", doc.Content[0], known); err != nil {
		return err
	}
	v.SetConfigType("yaml")
	if err := v.MergeConfig(bytes.NewReader(text)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkKeys refuses the keys of node that known does not have, and values of the wrong kind, naming file, line and key.
func checkKeys(path, prefix string, node *yaml.Node, known map[string]any) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: %s must be a mapping of keys to values", path, node.Line, orTop(prefix))
	}
	var errs []error
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		want, ok := known[key.Value]
		name := strings.TrimPrefix(prefix+"."+key.Value, ".")
		if !ok {
			names := make([]string, 0, len(known))
			for k := range known {
				names = append(names, k)
			}
			slices.Sort(names)
			errs = append(errs, fmt.Errorf("%s:%d: unknown key %q (known here: %s)", path, key.Line, name, strings.Join(names, ", ")))
			continue
		}
		if sub, isMap := want.(map[string]any); isMap {
			errs = append(errs, checkKeys(path, name, value, sub))
			continue
		}
		if err := checkValue(value, want); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: key %q: %w", path, value.Line, name, err))
		}
	}
	return errors.Join(errs...)
}

func checkValue(node *yaml.Node, want any) error {
	switch want.(type) {
	case time.Duration:
		if _, err := time.ParseDuration(node.Value); err != nil {
			return fmt.Errorf("%q is not a duration such as 500ms or 5s", node.Value)
		}
	case []string:
		var list []string
		if err := node.Decode(&list); err != nil {
			return errors.New("must be a list of texts")
		}
	case string:
		if node.Kind != yaml.ScalarNode {
			return errors.New("must be one value")
		}
	case bool:
		var b bool
		if err := node.Decode(&b); err != nil {
			return fmt.Errorf("%q is neither true nor false", node.Value)
		}
	case float64:
		var f float64
		if err := node.Decode(&f); err != nil {
			return fmt.Errorf("%q is not a number", node.Value)
		}
	default:
		var n int64
		if err := node.Decode(&n); err != nil {
			return fmt.Errorf("%q is not a whole number", node.Value)
		}
	}
	return nil
}

func orTop(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return fmt.Sprintf("key %q", prefix)
}

// toMap returns the keys and values of a configuration, nested as in its file.
func toMap(cfg any) (map[string]any, error) {
	out := map[string]any{}
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{TagName: configTag, Result: &out})
	if err != nil {
		return nil, err
	}
	return out, dec.Decode(cfg)
}

// lookup returns the value at a dotted key.
func lookup(m map[string]any, key string) (any, bool) {
	head, rest, more := strings.Cut(key, ".")
	v, ok := m[head]
	if !ok || !more {
		return v, ok
	}
	sub, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	return lookup(sub, rest)
}

// flatten returns the leaves of m by dotted key.
func flatten(prefix string, m map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		if sub, ok := v.(map[string]any); ok {
			for sk, sv := range flatten(prefix+k+".", sub) {
				out[sk] = sv
			}
			continue
		}
		out[prefix+k] = v
	}
	return out
}

// marshalConfig returns a configuration as the text of its file; durations are written as texts.
func marshalConfig(cfg any) ([]byte, error) {
	m, err := toMap(cfg)
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(readable(m))
}

func readable(m map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			out[k] = readable(v)
		case time.Duration:
			out[k] = v.String()
		default:
			out[k] = v
		}
	}
	return out
}
