#include "pool.h"

#include "control.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace readouts {
namespace {

struct Task {
  void (*call)(const void*, int);
  const void* context;
  int number;

  // Take numbers until there are no more: what each thread does.
  void run(std::atomic<int>& next) const {
    for (int at = next.fetch_add(1); at < number; at = next.fetch_add(1)) call(context, at);
  }
};

// Tell the processor that this thread waits for another one.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("yield");
#endif
}

// Return whether a condition holds within about 20 us: sleeping and being woken takes as long.
template <class Condition>
bool spin(const Condition& condition) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (condition()) return true;
    pause();
  }
  return false;
}

class Pool {
 public:
  // Return whether the tasks were run; false where another caller has the pool.
  bool run(const Task& task) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    int helpers = start(task.number - 1), sleeping;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = task;
      next_ = 0;
      seats_ = helpers;
      ++round_;
      sleeping = sleeping_;
    }
    if (sleeping > 0 && helpers > 0) wake_.notify_all();
    task.run(next_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      seats_ = 0;  // who has not come yet is not needed any more
    }
    if (spin([this] { return working_ == 0; })) return true;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

 private:
  // Make sure that there are so many threads; return how many can help.
  int start(int wanted) {
    while (threads_ < wanted) {
      try {
        std::thread(&Pool::serve, this).detach();
      } catch (const std::system_error&) {
        break;  // at exit, or where the system gives no more threads
      }
      ++threads_;
    }
    return threads_ < wanted ? threads_ : wanted;
  }

  void serve() {
    for (uint64_t seen = 0;;) {
      spin([&] { return round_ != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, [&] { return round_ != seen; });
      --sleeping_;
      seen = round_;
      if (seats_ == 0) continue;
      --seats_;
      ++working_;
      Task task = task_;
      lock.unlock();
      task.run(next_);
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  Task task_{};
  std::atomic<int> next_{0}, working_{0};
  std::atomic<uint64_t> round_{0};
  int threads_ = 0, seats_ = 0, sleeping_ = 0;
};

// Never destroyed: threads may wait in it while the process exits.
std::atomic<Pool*> pool{nullptr};
std::atomic<Team> team{nullptr};

// A forked child has no threads: it starts with a pool of its own.
void forget_threads() {
  pool.store(nullptr);
  team.store(nullptr);
}

void watch_forks() {
  static std::once_flag registered;
  std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, forget_threads); });
}

Pool* get_pool() {
  Pool* current = pool.load();
  if (current) return current;
  watch_forks();
  Pool* made = new Pool;
  if (pool.compare_exchange_strong(current, made)) return made;
  delete made;
  return current;
}

// Return whether the system gives so many threads to this one. An OpenMP runtime ends the process where it does not.
bool can_start(int threads) {
  thread_local int proven = 1;  // the runtime keeps the threads of a caller
  if (threads <= proven) return true;
  std::vector<std::thread> helpers;
  std::atomic<bool> released{false};
  bool all = true;
  try {
    while ((int)helpers.size() < threads - 1)
      helpers.emplace_back([&released] {
        while (!released) std::this_thread::yield();
      });
  } catch (const std::exception&) {
    all = false;
  }
  released = true;
  for (std::thread& helper : helpers) helper.join();
  if (all) proven = threads;
  return all;
}

thread_local bool inside = false;

struct Region {
  Task task;
  std::atomic<int> next{0};
};

void take_tasks(void* data) {
  Region& region = *static_cast<Region*>(data);
  inside = true;
  region.task.run(region.next);
  inside = false;
}

}  // namespace

void set_team(Team given) {
  watch_forks();
  team.store(given);
}

void run_in_parallel(int tasks, void (*task)(const void*, int), const void* context) {
  if (tasks > 1 && !inside) {
    ControlWord word;  // which new threads inherit, and keep for whoever uses them
    Team start = team.load();
    if (start && can_start(tasks)) {
      Region region{{task, context, tasks}};
      start(take_tasks, &region, static_cast<unsigned>(tasks), 0);
      return;
    }
    inside = true;
    bool done = get_pool()->run({task, context, tasks});
    inside = false;
    if (done) return;
  }
  for (int number = 0; number < tasks; ++number) task(context, number);
}

}  // namespace readouts
