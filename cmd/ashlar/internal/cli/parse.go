package cli

// ParseSize returns the number of bytes that s says: "4GiB", "512MiB" or a plain number of bytes.
func ParseSize(s string) (int64, error) {
	n, err := parseSize(s)
	return int64(n), err
}
