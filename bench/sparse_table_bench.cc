// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How many rows a sparse table updates and reads in a second.
//
//   sparse_table_bench [threads, default 1] [rows, default 10000000] [optimizer, default sgd]
//
// Rows of 64 f32, in one table for each thread, as servers have them: a row lies in the slice that
// slice_of() says. sgd is without momentum. Calls of at most 16384 ids, drawn uniformly or by a
// Zipf law with exponent 1.05 (a power law's inverse distribution function, cut to whole numbers),
// each once in a call. "both" updates the ids of a call, then reads them. "ceiling" is what the
// memory's measured speed allows, if nothing is found in a cache: a row's lines with its state and
// the line of its place in the index, written back after an update. Gradients and results, 4 MiB of
// each, are used again by the next call. Rates of Zipf ids may lie above, since caches have the
// rows that come often. "cpu ns" is processor time a row: what a busy machine shows best. "make" is
// the first update of all rows, with the longest of its calls.

#include <fmt/core.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "trireme/base/random.h"
#include "trireme/comm/bench/memory_limit.h"
#include "trireme/ps/slices.h"
#include "trireme/ps/sparse_table.h"

namespace {

using namespace trireme;

constexpr std::int64_t kWidth = 64;
constexpr std::size_t kCallIds = 16'384;
constexpr int kCalls = 200;
constexpr int kRepetitions = 9;
constexpr double kRate = 0.01;

using Ids = std::vector<std::uint64_t>;

struct Options {
  int threads = 1;
  std::uint64_t rows = 10'000'000;
  std::string optimizer = "sgd";
};

// Threads that wait for each other, as ranks do.
class Team {
 public:
  explicit Team(int size) : size_(size), barrier_(size), values_(static_cast<std::size_t>(size)) {}

  int size() const { return size_; }
  void wait() { barrier_.arrive_and_wait(); }

  double max(int rank, double value) {
    values_[static_cast<std::size_t>(rank)] = value;
    wait();
    const double largest = *std::max_element(values_.begin(), values_.end());
    wait();
    return largest;
  }

  // Calls body(rank) on a thread for each rank.
  void run(const std::function<void(int)>& body) const {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size_; ++rank) threads.emplace_back([&body, rank] { body(rank); });
  }

 private:
  int size_;
  std::barrier<> barrier_;
  std::vector<double> values_;
};

double memory_bytes_per_s(Team& team) {
  double result = 0;
  team.run([&](int rank) {
    BenchSubject subject;
    subject.rank = rank;
    subject.size = team.size();
    subject.barrier = [&] { team.wait(); };
    subject.max_over_ranks = [&team, rank](std::span<double> values) {
      for (double& value : values) value = team.max(rank, value);
    };
    const double rate = measure_memory_bytes_per_s(subject, memory_limit_array_bytes(team.size()));
    if (rank == 0) result = rate;
  });
  return result;
}

// Popular rows lie anywhere.
std::uint64_t id_of(std::uint64_t rank) { return rank * 0x9E3779B97F4A7C15U; }

std::uint64_t drawn_rank(const Options& options, bool zipf, double unit) {
  constexpr double kExponent = 1.05;
  const auto rows = static_cast<double>(options.rows);
  if (!zipf) return static_cast<std::uint64_t>(unit * rows);
  const double least = std::pow(rows + 1, 1 - kExponent);
  const double x = std::pow(1 - unit * (1 - least), 1 / (1 - kExponent));
  return std::min(static_cast<std::uint64_t>(x), options.rows) - 1;
}

// Of each call of one thread, its slice's ids.
std::vector<Ids> drawn_calls(const Options& options, bool zipf, int thread) {
  const RandomStream stream(static_cast<std::uint64_t>(thread), zipf ? "zipf" : "uniform");
  std::vector<Ids> calls(kCalls);
  std::uint64_t draw = 0;
  for (Ids& ids : calls) {
    for (std::size_t drawn = 0; drawn < kCallIds;) {
      const std::uint64_t id = id_of(drawn_rank(options, zipf, stream.uniform(draw++)));
      if (ps::slice_of(id, static_cast<std::uint32_t>(options.threads)) !=
          static_cast<std::uint32_t>(thread)) {
        continue;
      }
      ids.push_back(id);
      ++drawn;
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }
  return calls;
}

// A thread's table and what it is called with.
struct Slice {
  std::optional<ps::SparseTable> table;
  std::vector<float> gradients, out;
  double longest_call_ms = 0;
};

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double thread_cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

void make_rows(const Options& options, int thread, Slice& slice) {
  ps::SparseTableConfig config{.name = "bench", .width = kWidth};
  config.optimizer.name = options.optimizer;
  if (options.optimizer == "sgd") config.optimizer.momentum = 0.0;
  slice.table.emplace(config, 1);
  const RandomStream stream(1, "gradients");
  for (std::size_t i = 0; i < kCallIds * kWidth; ++i) {
    slice.gradients.push_back(static_cast<float>(stream.uniform(i) - 0.5));
  }
  slice.out.resize(slice.gradients.size());
  Ids ids;
  for (std::uint64_t rank = 0; rank < options.rows; ++rank) {
    const std::uint64_t id = id_of(rank);
    if (ps::slice_of(id, static_cast<std::uint32_t>(options.threads)) ==
        static_cast<std::uint32_t>(thread)) {
      ids.push_back(id);
    }
    if (ids.size() < kCallIds && rank + 1 < options.rows) continue;
    const double before_ms = thread_cpu_ms();
    slice.table->update(ids, slice.gradients.data(), kRate, 1.0);
    slice.longest_call_ms = std::max(slice.longest_call_ms, thread_cpu_ms() - before_ms);
    ids.clear();
  }
}

// One update of sgd is known.
void verify(const Options& options, Slice& slice, const Ids& ids) {
  if (options.optimizer != "sgd") return;
  std::vector<float> before(ids.size() * kWidth), after(before.size());
  slice.table->read(ids, before.data());
  slice.table->update(ids, slice.gradients.data(), kRate, 1.0);
  slice.table->read(ids, after.data());
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (after[i] != before[i] - static_cast<float>(kRate) * slice.gradients[i]) {
      throw std::runtime_error(fmt::format("value {} is wrong after an update", i));
    }
  }
}

struct Operation {
  const char* name;
  bool updates, reads;
};

void run_call(const Operation& operation, Slice& slice, const Ids& ids) {
  if (operation.updates) slice.table->update(ids, slice.gradients.data(), kRate, 1.0);
  if (operation.reads) slice.table->read(ids, slice.out.data());
}

double ceiling(const Operation& operation, const Slice& slice, double bytes_per_s) {
  constexpr double kLine = 64;
  const double weights = kWidth * sizeof(float);
  const double state = static_cast<double>(slice.table->state_width()) * sizeof(float);
  const double bytes = operation.updates ? 2 * (weights + state + kLine) : weights + kLine;
  return bytes_per_s / bytes;
}

void measure(const Operation& operation, bool zipf, std::vector<Slice>& slices,
             const std::vector<std::vector<Ids>>& calls, Team& team, double bytes_per_s) {
  double rows = 0;
  for (const std::vector<Ids>& of_thread : calls) {
    for (const Ids& ids : of_thread) rows += static_cast<double>(ids.size());
  }
  std::vector<double> rates, cpu_ns;
  for (int repetition = -1; repetition < kRepetitions; ++repetition) {
    const std::clock_t cpu = std::clock();
    const double seconds = seconds_of([&] {
      team.run([&](int rank) {
        const auto at = static_cast<std::size_t>(rank);
        for (const Ids& ids : calls[at]) run_call(operation, slices[at], ids);
      });
    });
    if (repetition < 0) continue;
    rates.push_back(rows / seconds);
    cpu_ns.push_back(1e9 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / rows);
  }
  std::sort(rates.begin(), rates.end());
  std::sort(cpu_ns.begin(), cpu_ns.end());
  const double median = rates[kRepetitions / 2], most = ceiling(operation, slices[0], bytes_per_s);
  fmt::print("{:8} {:8} {:8.2f} ({:.2f} .. {:.2f}) {:8.1f} {:12.2f} {:8.0f} %\n",
             zipf ? "zipf" : "uniform", operation.name, median / 1e6, rates.front() / 1e6,
             rates.back() / 1e6, cpu_ns[kRepetitions / 2], most / 1e6, 100 * median / most);
}

void run(const Options& options) {
  Team team(options.threads);
  const double bytes_per_s = memory_bytes_per_s(team);
  std::vector<Slice> slices(static_cast<std::size_t>(options.threads));
  const double seconds = seconds_of([&] {
    team.run([&](int rank) { make_rows(options, rank, slices[static_cast<std::size_t>(rank)]); });
  });
  double longest_ms = 0, bytes = 0;
  for (const Slice& slice : slices) {
    longest_ms = std::max(longest_ms, slice.longest_call_ms);
    bytes += static_cast<double>(slice.table->memory_bytes());
  }
  fmt::print("{} rows of {} f32 with {}, {} threads, memory {:.1f} GB/s\n", options.rows, kWidth,
             options.optimizer, options.threads, bytes_per_s / 1e9);
  fmt::print(
      "make {:.2f} million rows/s, the longest call of {} ids {:.1f} cpu ms; {:.0f} bytes a row\n",
      static_cast<double>(options.rows) / seconds / 1e6, kCallIds, longest_ms,
      bytes / static_cast<double>(options.rows));
  fmt::print("{:8} {:8} {:>24} {:>8} {:>12} {:>10}\n", "ids", "", "million rows/s (of 9)", "cpu ns",
             "ceiling", "share");
  for (const bool zipf : {false, true}) {
    std::vector<std::vector<Ids>> calls;
    for (int thread = 0; thread < options.threads; ++thread) {
      calls.push_back(drawn_calls(options, zipf, thread));
    }
    verify(options, slices[0], calls[0][0]);
    for (const Operation& operation :
         {Operation{"update", true, false}, {"read", false, true}, {"both", true, true}}) {
      measure(operation, zipf, slices, calls, team, bytes_per_s);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (argc > 1) options.threads = std::atoi(argv[1]);
  if (argc > 2) options.rows = std::strtoull(argv[2], nullptr, 10);
  if (argc > 3) options.optimizer = argv[3];
  if (options.threads < 1 || options.threads > 256 || options.rows < 1) {
    fmt::print(stderr, "usage: sparse_table_bench [threads] [rows] [optimizer]\n");
    return 2;
  }
  try {
    run(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "sparse_table_bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
