// Threads for tasks: those of an OpenMP runtime that the process has already, else a pool of its own.
#pragma once

namespace readouts {

// Call task(context, 0), ..., task(context, tasks - 1), on other threads as far as they are free and on this one.
// Where threads are busy or cannot start, or where a task calls this again, the caller does all of the work itself.
void run_in_parallel(int tasks, void (*task)(const void*, int), const void* context);

// Calls a function on a team of threads: the signature of GOMP_parallel.
using Team = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

// Set the runtime whose threads work; null for the pool. A forked child has no threads of the runtime, and takes
// the pool.
void set_team(Team team);

}  // namespace readouts
