// Fork handling: a child has the memory of all threads, but only the thread that called fork().
#pragma once

namespace mvde::internal {

// Returns the number of forks between the process that loaded this library and this one. Threads started under another
// count do not exist here: do not wait for them, join them, or destroy what they wait on.
unsigned num_forks();

// Registers `in_child` to run in every child before fork() returns; it must neither allocate nor lock.
void at_fork(void (*in_child)());

}  // namespace mvde::internal
