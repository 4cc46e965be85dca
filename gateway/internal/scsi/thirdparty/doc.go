// Package thirdparty is the copy manager (SPC-4 5.16): it carries out what the lists of packages xcopy and odx ask for, on
// media that it is given, and keeps what initiators may ask about it afterwards. Data go from medium to medium through one
// buffer per copy; they are never sent to an initiator.
//
//	EXTENDED COPY ──► Manager.Extended ──┐                  ┌──► Unit.Medium of the source
//	POPULATE TOKEN ─► Manager.Populate ──┤ room, one buffer ┤
//	WRITE USING … ──► Manager.Write ─────┘     Entry        └──► Unit.Medium of the destination
//
// What may be reached is the caller's to say: a source or destination is found by a function that knows only the logical
// units which the initiator itself sees through the same target. Before each piece the unit is asked whether it is still
// there.
//
// A copy writes to another logical unit than the one that got its command. So an abort of the command, and a reset of the
// destination, fence the medium of the destination: see Running and Copies.
//
// It starts no goroutine: a copy runs to its end in the goroutine of its command.
package thirdparty
