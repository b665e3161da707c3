// Threads that wait for tasks: one pool a process, safe to share between callers and safe after a fork.
#pragma once

namespace readouts {

// Call task(context, 0), ..., task(context, tasks - 1), on other threads as far as they are free and on this one.
// Where the pool is busy, cannot start a thread, or is entered again, the caller does all of the work itself.
void run_in_parallel(int tasks, void (*task)(const void*, int), const void* context);

}  // namespace readouts
