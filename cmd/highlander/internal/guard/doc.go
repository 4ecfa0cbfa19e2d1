// Package guard runs a command of which nothing survives: not the death of
// highlander, however it ends, nor a deadline that highlander, hung or
// stopped, lets pass.
//
// Between highlander and the command stand two helpers, the same binary in
// hidden modes, started while highlander still waits for its lease:
//
//	highlander --> guard --> keeper --> command --> whatever it forks
//
// A parent-death signal reaches a direct child only, so something must live on
// to kill the grandchildren. Each process learns of the death of the others by
// the end of a pipe, and highlander reports the command gone only when its own
// pipe says so, or has ended and nobody is left:
//
//	killed                   who ends the command and all it forked
//	highlander               the keeper; the guard too, should that one be frozen
//	guard                    the keeper
//	keeper                   the guard, to which the orphans fall (*)
//	highlander and guard     the keeper
//	highlander and keeper    the guard (*)
//	guard and keeper         highlander, to which the orphans fall (*)
//	all three at once        the kernel, by the parent-death signal, and only
//	                         the process that the keeper forked itself (*)
//	deadline passed          keeper, guard and highlander, each with its own
//	                         timer: the freeze of any two delays nothing (**).
//	                         With all three frozen the command lives on
//
// (**) Linux: each kills the process group, and all that descends from the
// helpers. What forks or loses its parent at that very moment may escape the
// first look without a cgroup; the next ones follow after 10 ms, 20 ms and so on.
// When the patience with a frozen keeper has run out (2 s), or with a frozen guard
// (5 s), that one is killed, and all falls to who is left. A keeper that stands
// still in the middle of a start is killed 10 ms after the deadline: nothing is
// started later, unless all three were frozen; the keeper then kills at once what it
// goes on to start. Elsewhere than on Linux such a keeper has the 2 s, too.
//
// (*) Linux. Other Unix systems have neither parent-death signals nor
// subreapers: there the guard and highlander kill the process group they were
// told of, and a keeper killed between its fork and its report leaves the
// command behind. On Windows highlander holds a job object, which the kernel
// empties when highlander dies; nothing enforces a deadline while highlander
// is frozen.
//
// What leaves the process group is still reached on Linux, because orphans
// fall to the keeper, or to the guard when the keeper is gone: a daemon is
// killed like any other. Out of reach are a process in a session of its own
// when guard and keeper are killed at once, and processes that highlander has
// no permission to signal: these are waited for, not ended. A command with the
// set-user-id bit has no parent-death signal, by the kernel's rules.
//
// Where a cgroup can be made (cgroup v2, Linux 5.14, the right to write to
// highlander's own: as root, or in a subtree delegated to its user), these are
// reached, too. The command is started in a cgroup of its own, in which the
// helpers are not, and whoever has to kill it writes to cgroup.kill. The kernel
// then ends at one stroke all that was forked in it, whatever session, parent or
// user it has, and however fast it forks; gone is what cgroup.events says is not
// populated. Then
//
//	guard and keeper         highlander ends all of it
//	all three at once        the kernel ends the main process; what it forked
//	                         lives on until a highlander is started in the same
//	                         cgroup as this one was: that ends it first
//	deadline passed          each of the three ends all of it
//
// What has the right to move itself to another cgroup can leave: root, and in a
// delegated subtree every process of that user that sets out to do so. To leave
// the session or to fork twice does not suffice. Highlander logs at level debug
// whether the command gets a cgroup, and why it does not.
//
// When highlander is dead and nothing of the command is left, the guard may say
// so to the other nodes: highlander hands it a certificate and the peers'
// addresses beforehand (SetCertificate). It gives it out only when its own pipe
// from highlander has ended, highlander's process is gone, the command's cgroup
// is empty, if it has one, and the guard has no children left: to it fall, on
// Linux, all that the command forked.
//
//	killed                   is it certified?
//	highlander               yes; if the keeper is frozen, when it was killed for that
//	highlander and keeper    yes
//	highlander and guard     no, there is nobody to do it
//	highlander, closed       no: a guard that was closed says nothing
//	highlander frozen        no, as long as it is not dead
//	something cannot be killed, or is in uninterruptible sleep: when it is gone
//
// Connections of highlander's to a server that hands the lease on when they end
// can be kept open that long, too (Hold): guard and keeper have them as well, and
// their end says that highlander is dead and nothing of the command is left. That
// holds for whatever of the first table is killed, but for all three at once.
//
// Nobody has to wait for the guard meanwhile: it has let go of the standard
// streams, the working directory and whatever descriptors highlander inherited.
// It tries for up to 30 s, until all peers have acknowledged; once it got a
// SIGTERM, for a second.
//
// Not certified is the death of a highlander that is the first process of a
// container, with which the kernel kills all others, and what a supervisor
// kills as a whole, such as the cgroup of a service. Other Unix systems than
// Linux certify that the process group is empty, which is all that they kill
// at a deadline, too. On Windows nobody is left to certify anything.
//
// The helpers share one session, apart from highlander's, and the command has
// a process group of its own in it: Ctrl-C and the hang-up of a terminal reach
// highlander alone, which decides what to pass on. The command has
// highlander's standard input, output and error and no other descriptor; its
// standard input is the null device if highlander's is a terminal, since only
// the foreground process group may read from one.
package guard
