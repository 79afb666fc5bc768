// What a fork leaves behind: the child has the memory of all threads, but only the one that called fork().
#pragma once

namespace mvde::internal {

// How many forks lie between the process that loaded this library and this one. Threads that were started under another
// number do not exist here: they must be neither waited for nor joined, and what they wait on must not be destroyed.
unsigned num_forks();

// Calls `in_child` in every child before fork() returns there; it must neither allocate nor lock.
void at_fork(void (*in_child)());

}  // namespace mvde::internal
