// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Checked longjmp() refuses to leave one stack for another, which is what fibres do.
#undef _FORTIFY_SOURCE

#include "tests/fakes/cuda_on_host.h"

#include <fmt/format.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cuda_on_host {
namespace {

constexpr std::size_t kStackBytes = std::size_t{64} << 10;
// Stacks begin at different places of a page, or they would all share a few lines of the cache.
constexpr std::size_t kStackStep = 192, kStackSteps = 20;
constexpr unsigned kWarpThreads = 32;
constexpr unsigned kMostThreads = 1024;

struct Fibre {
  enum class State { kReady, kWaits, kEnded };

  jmp_buf place;
  std::unique_ptr<char[]> stack{new char[kStackBytes + kStackStep * kStackSteps]};
  bool started = false;
  State state = State::kReady;
  Scope scope = Scope::kBlock;
  std::string_view file;
  int line = 0;
  // Of the last exchange and of the one before, which a slower thread may still read.
  std::uint64_t given[2] = {};
  unsigned exchanges = 0;

  bool waits_with(const Fibre& other) const {
    return state == State::kWaits && scope == other.scope && line == other.line &&
           file == other.file;
  }
};

// The threads of the block that runs. Stacks are kept from block to block.
struct Block {
  std::vector<std::unique_ptr<Fibre>> fibres;
  unsigned threads = 0;
  jmp_buf scheduler;
  const std::function<void()>* kernel = nullptr;
  std::string error;
};
Block running;

// Contexts only start a fibre on its stack; from then on jumps are used, which need no system call.
void give_way(Fibre& fibre) {
  if (_setjmp(fibre.place) == 0) _longjmp(running.scheduler, 1);
}

// The fibre that runs.
unsigned current() { return threadIdx.y * blockDim.x + threadIdx.x; }

void run_thread() {
  (*running.kernel)();
  Fibre& self = *running.fibres[current()];
  self.state = Fibre::State::kEnded;
  give_way(self);
}

void start(Fibre& fibre, unsigned number) {
  fibre.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fibre.stack.get() + number % kStackSteps * kStackStep;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, run_thread, 0);
  setcontext(&context);
}

// Until it waits or ends.
void run_fibre(unsigned number) {
  threadIdx.x = number % blockDim.x;
  threadIdx.y = number / blockDim.x;
  Fibre& fibre = *running.fibres[number];
  if (_setjmp(running.scheduler) == 0) {
    if (fibre.started) _longjmp(fibre.place, 1);
    start(fibre, number);
  }
  if (!running.error.empty()) throw std::logic_error(running.error);
}

void prepare_threads() {
  while (running.fibres.size() < running.threads) {
    running.fibres.push_back(std::make_unique<Fibre>());
  }
  for (unsigned i = 0; i < running.threads; ++i) {
    running.fibres[i]->state = Fibre::State::kReady;
    running.fibres[i]->started = false;
  }
}

// Threads [first, first + count) go on if all of them wait there, at the same place.
bool release(unsigned first, unsigned count, Scope scope) {
  const Fibre& one = *running.fibres[first];
  if (one.scope != scope) return false;
  for (unsigned i = first; i < first + count; ++i) {
    if (!running.fibres[i]->waits_with(one)) return false;
  }
  for (unsigned i = first; i < first + count; ++i) {
    running.fibres[i]->state = Fibre::State::kReady;
  }
  return true;
}

// Until its threads wait for other warps, have ended or are stuck.
void run_warp(unsigned first) {
  do {
    for (unsigned i = 0; i < kWarpThreads; ++i) {
      const bool ascending = host.order == Order::kAscending;
      const unsigned number = first + (ascending ? i : kWarpThreads - 1 - i);
      if (running.fibres[number]->state == Fibre::State::kReady) run_fibre(number);
    }
  } while (release(first, kWarpThreads, Scope::kWarp));
}

std::string where(const Fibre& fibre) {
  return fibre.state == Fibre::State::kEnded
             ? "has ended"
             : fmt::format("waits at {}:{}", fibre.file, fibre.line);
}

[[noreturn]] void report_stuck() {
  const Fibre& first = *running.fibres[0];
  for (unsigned i = 1; i < running.threads; ++i) {
    const Fibre& other = *running.fibres[i];
    if (where(other) == where(first)) continue;
    throw std::logic_error(fmt::format("block {}: thread 0 {}, thread {} {}", blockIdx.x,
                                       where(first), i, where(other)));
  }
  throw std::logic_error("a block's threads wait for nothing");
}

void run_block() {
  prepare_threads();
  const unsigned warps = running.threads / kWarpThreads;
  do {
    for (unsigned i = 0; i < warps; ++i) {
      run_warp((host.order == Order::kAscending ? i : warps - 1 - i) * kWarpThreads);
    }
  } while (release(0, running.threads, Scope::kBlock));
  const auto ended = [](const auto& fibre) { return fibre->state == Fibre::State::kEnded; };
  const auto begin = running.fibres.begin();
  if (!std::all_of(begin, begin + running.threads, ended)) report_stuck();
}

}  // namespace

void wait_for_threads(Scope scope, const char* file, int line) {
  Fibre& self = *running.fibres[current()];
  self.state = Fibre::State::kWaits;
  self.scope = scope;
  self.file = file;
  self.line = line;
  give_way(self);
}

std::uint64_t exchange(unsigned mask, std::uint64_t bits, int lanes, const char* file, int line) {
  const unsigned own = current();
  Fibre& self = *running.fibres[own];
  if (mask != 0xFFFFFFFFU) {
    running.error = fmt::format("{}:{}: a shuffle of part of a warp", file, line);
  }
  const unsigned turn = self.exchanges++ % 2;
  self.given[turn] = bits;
  wait_for_threads(Scope::kWarp, file, line);
  return running.fibres[own ^ static_cast<unsigned>(lanes)]->given[turn];
}

void run(unsigned blocks, const dim3& threads, void* stream, const std::function<void()>& kernel) {
  ++host.launches;
  host.last_stream = stream;
  host.largest_grid = std::max(host.largest_grid, blocks);
  if (host.refuse_with != 0) return;
  const unsigned all = threads.x * threads.y;
  if (all == 0 || all > kMostThreads || threads.x % kWarpThreads != 0) {
    throw std::logic_error(
        fmt::format("{} x {} threads are no whole warps of a block", threads.x, threads.y));
  }
  blockDim = threads;
  gridDim.x = std::min(blocks, host.most_blocks);
  running.threads = all;
  running.kernel = &kernel;
  running.error.clear();
  for (const auto& fibre : running.fibres) fibre->exchanges = 0;
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) run_block();
}

}  // namespace cuda_on_host
