// Package hostile holds the classes of mistakes that targets became known for, each as the input that finds it, sent over
// a real socket after as much of a session as it needs. The target must refuse or survive it; what it does meanwhile to
// other initiators, to its memory and to its goroutines is for the test that runs the checks to see.
//
//	text.go      keys and values that are too long, too many, unterminated, endless; CHAP values; silent logins
//	lengths.go   declared and real lengths that differ, lengths at their ends, garbage; connections that end anywhere
//	commands.go  other initiators' logical units, reservations with lying lengths, buffers, all operation codes
package hostile
