// CUDA kernels on a CPU, to test them without a GPU: one fibre per CUDA thread, run one at a time.
//
// A fibre runs until it reaches a barrier or a warp function, waits there, and goes on when all
// that have to take part have come. Waiting at different lines, at different functions, or for
// somebody who has ended, is reported with the lines and stops the program, as is a block that
// nobody can continue. Shared memory is a heap block of the exact size (AddressSanitizer sees
// accesses outside it) filled with NaNs. The order in which threads run is drawn from a seed:
// kernels with data races give other bits for another seed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <source_location>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };

namespace cuda_emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Built {
  Index thread, block, block_size, grid_size;
};
inline Built built;  // what the running thread sees as threadIdx, blockIdx, blockDim, gridDim

// Called with a thread of every warp that begins, or goes on after its lanes or its block have met.
inline void (*on_meeting)(std::size_t thread) = nullptr;

// What a thread waits for.
enum class Wait { none, ended, warp_barrier, ballot, shuffle, block_barrier };

class Block {
 public:
  static constexpr int kWarp = 32;
  static constexpr std::size_t kStack = 256 * 1024;

  Block(int n_threads, int n_shared) : fibers_(n_threads), order_(n_threads) {
    void* memory = nullptr;  // not rounded up: one byte beyond the end is already an error
    if (posix_memalign(&memory, 16, n_shared > 0 ? n_shared : 1) != 0) std::abort();
    shared_.reset(static_cast<std::byte*>(memory));
    shared_size_ = n_shared;
    for (int i = 0; i < n_threads; ++i) {
      fibers_[i].stack.reset(new std::byte[kStack]);
      order_[i] = i;
    }
  }

  std::byte* shared() { return shared_.get(); }

  void run(const std::function<void()>& body, std::mt19937_64& random) {
    body_ = &body;
    if (shared_size_ > 0) std::memset(shared_.get(), 0xff, shared_size_);  // every number is a NaN
    for (auto& fiber : fibers_) start(fiber);
    note_meetings();
    for (;;) {
      for (std::size_t i = order_.size() - 1; i > 0; --i) {
        std::swap(order_[i], order_[random() % (i + 1)]);
      }
      for (const int i : order_) {
        if (fibers_[i].wait == Wait::none) resume(i);
      }
      if (ended() == fibers_.size()) return;
      bool moved = false;
      for (std::size_t warp = 0; warp < fibers_.size(); warp += kWarp) moved |= meet_warp(warp);
      if (!moved && !meet_block()) fail("deadlock", 0, fibers_.size());
    }
  }

  // Called by threads: wait, and return once everybody concerned has come.
  void wait(Wait kind, const std::source_location& where, uint64_t given = 0) {
    Fiber& own = fibers_[running_];
    own.wait = kind;
    own.where = where;
    own.given = given;
    leave(own);
  }
  // What the lane of this warp gave to the function that has just been met at.
  uint64_t given(int lane) const { return fibers_[running_ / kWarp * kWarp + lane].met; }
  int lane() const { return running_ % kWarp; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<std::byte[]> stack;
    Wait wait = Wait::none;
    std::source_location where;
    uint64_t given = 0, met = 0;
    void* fake_stack = nullptr;
  };

  std::vector<Fiber> fibers_;
  std::vector<int> order_;
  std::unique_ptr<std::byte, Free> shared_;
  std::size_t shared_size_ = 0;
  const std::function<void()>* body_ = nullptr;
  ucontext_t scheduler_;
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_size_ = 0;
  int running_ = 0;

  std::size_t ended() const {
    std::size_t n = 0;
    for (const auto& fiber : fibers_) n += fiber.wait == Wait::ended;
    return n;
  }

  static void entry(unsigned high, unsigned low) {
    auto* block = reinterpret_cast<Block*>((uint64_t(high) << 32) | low);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack_,
                                    &block->scheduler_stack_size_);
#endif
    (*block->body_)();
    Fiber& own = block->fibers_[block->running_];
    own.wait = Wait::ended;
    block->leave(own);
  }

  void start(Fiber& fiber) {
    fiber.wait = Wait::none;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    const auto self = reinterpret_cast<uint64_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Block::entry), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  }

  void resume(int i) {
    running_ = i;
    built.thread.x = static_cast<unsigned>(i);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack_, fibers_[i].stack.get(), kStack);
#endif
    swapcontext(&scheduler_, &fibers_[i].context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
  }

  void leave(Fiber& own) {
#if defined(__SANITIZE_ADDRESS__)
    const bool last = own.wait == Wait::ended;
    __sanitizer_start_switch_fiber(last ? nullptr : &own.fake_stack, scheduler_stack_,
                                   scheduler_stack_size_);
#endif
    swapcontext(&own.context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own.fake_stack, &scheduler_stack_, &scheduler_stack_size_);
#endif
  }

  static bool same(const Fiber& a, const Fiber& b) {
    return a.wait == b.wait && a.where.line() == b.where.line() &&
           std::strcmp(a.where.file_name(), b.where.file_name()) == 0;
  }

  // All lanes of a warp wait for each other: let them go on.
  bool meet_warp(std::size_t first) {
    const std::size_t last = std::min(first + kWarp, fibers_.size());
    bool waits = false, leaves = false;
    for (std::size_t i = first; i < last; ++i) {
      const Wait w = fibers_[i].wait;
      (w == Wait::ended || w == Wait::block_barrier ? leaves : waits) = true;
    }
    if (!waits) return false;
    if (leaves || last - first < kWarp) fail("a warp is not complete", first, last);
    for (std::size_t i = first; i < last; ++i) {
      if (!same(fibers_[i], fibers_[first])) fail("lanes wait at different places", first, last);
    }
    for (std::size_t i = first; i < last; ++i) {
      fibers_[i].met = fibers_[i].given;
      fibers_[i].wait = Wait::none;
    }
    if (on_meeting != nullptr) on_meeting(first);
    return true;
  }

  void note_meetings() const {
    if (on_meeting == nullptr) return;
    for (std::size_t warp = 0; warp < fibers_.size(); warp += kWarp) on_meeting(warp);
  }

  bool meet_block() {
    for (const auto& fiber : fibers_) {
      if (fiber.wait != Wait::block_barrier || !same(fiber, fibers_[0])) {
        fail("threads wait at different places", 0, fibers_.size());
      }
    }
    for (auto& fiber : fibers_) fiber.wait = Wait::none;
    note_meetings();
    return true;
  }

  [[noreturn]] void fail(const char* what, std::size_t first, std::size_t last) const {
    static const char* names[] = {"runs",          "ended",       "__syncwarp",
                                  "__ballot_sync", "__shfl_sync", "__syncthreads"};
    std::fprintf(stderr, "cuda_emulation: %s in block %u\n", what, built.block.x);
    for (std::size_t i = first; i < last; ++i) {
      const Fiber& f = fibers_[i];
      if (i > first && same(f, fibers_[i - 1])) continue;
      std::fprintf(stderr, "  from thread %zu on: %s at %s:%u\n", i, names[int(f.wait)],
                   f.where.file_name(), unsigned(f.where.line()));
    }
    std::exit(3);
  }
};

inline Block* block = nullptr;
inline uint64_t seed = 0;
inline std::byte* shared_memory() { return block->shared(); }

inline void run(int64_t n_blocks, int n_threads, int n_shared, const std::function<void()>& body) {
  std::mt19937_64 random(seed);
  Block own(n_threads, n_shared);
  block = &own;
  built.block_size = {static_cast<unsigned>(n_threads), 1, 1};
  built.grid_size = {static_cast<unsigned>(n_blocks), 1, 1};
  for (int64_t i = 0; i < n_blocks; ++i) {
    const int64_t at = seed % 2 == 0 ? i : n_blocks - 1 - i;
    built.block = {static_cast<unsigned>(at), 0, 0};
    own.run(body, random);
  }
  block = nullptr;
}

template <class T>
uint64_t bits_of(T x) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T x;
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}

inline void check_mask(unsigned mask) {
  if (mask != 0xffffffffu) {
    std::fprintf(stderr, "cuda_emulation: only full masks are emulated, got %x\n", mask);
    std::exit(3);
  }
}

template <class T>
T shuffle(unsigned mask, T x, int from, const std::source_location& where) {
  check_mask(mask);
  block->wait(Wait::shuffle, where, bits_of(x));
  return from_bits<T>(block->given(from));
}

}  // namespace cuda_emulation

#define threadIdx (cuda_emulation::built.thread)
#define blockIdx (cuda_emulation::built.block)
#define blockDim (cuda_emulation::built.block_size)
#define gridDim (cuda_emulation::built.grid_size)

using Where = std::source_location;

inline void __syncthreads(const Where& where = Where::current()) {
  cuda_emulation::block->wait(cuda_emulation::Wait::block_barrier, where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, const Where& where = Where::current()) {
  cuda_emulation::check_mask(mask);
  cuda_emulation::block->wait(cuda_emulation::Wait::warp_barrier, where);
}
inline unsigned __ballot_sync(unsigned mask, bool yes, const Where& where = Where::current()) {
  cuda_emulation::check_mask(mask);
  cuda_emulation::block->wait(cuda_emulation::Wait::ballot, where, yes);
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) {
    result |= static_cast<unsigned>(cuda_emulation::block->given(i)) << i;
  }
  return result;
}
template <class T>
T __shfl_sync(unsigned mask, T x, int from, const Where& where = Where::current()) {
  return cuda_emulation::shuffle(mask, x, from & 31, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int with, const Where& where = Where::current()) {
  return cuda_emulation::shuffle(mask, x, cuda_emulation::block->lane() ^ with, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, int by, const Where& where = Where::current()) {
  const int lane = cuda_emulation::block->lane();
  return cuda_emulation::shuffle(mask, x, lane >= by ? lane - by : lane, where);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
