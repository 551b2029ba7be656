// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What this process's memory is used for: bytes by category, now and at the peak.
//
// The allocator (caching_allocator.h) enters every block under the category of the scope in which
// it was made, and takes it off that category whoever frees it, wherever. Memory from elsewhere is
// entered by its owner.
//
//   {
//     const MemoryScope scope(MemoryCategory::kOptimizer);
//     moment = at::zeros({size});                       // the optimizer's from now on
//   }
//   process_memory().report().current[MemoryCategory::kOptimizer]   // bytes
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

namespace trireme {

enum class MemoryCategory { kWeights, kGradients, kOptimizer, kActivations, kWorkspace };
inline constexpr std::array kMemoryCategories = {
    MemoryCategory::kWeights, MemoryCategory::kGradients, MemoryCategory::kOptimizer,
    MemoryCategory::kActivations, MemoryCategory::kWorkspace};

// "weights", "gradients", "optimizer", "activations", "workspace".
std::string_view memory_category_name(MemoryCategory category);

// While it lives, what this thread allocates is of that category; scopes nest. Outside of all it is
// kActivations.
class MemoryScope {
 public:
  explicit MemoryScope(MemoryCategory category);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  MemoryCategory before_;
};

// Of this thread, now.
MemoryCategory current_memory_category();

// Bytes of each category.
class MemorySplit {
 public:
  std::int64_t& operator[](MemoryCategory c) { return bytes_[static_cast<std::size_t>(c)]; }
  std::int64_t operator[](MemoryCategory c) const { return bytes_[static_cast<std::size_t>(c)]; }
  std::int64_t total() const;
  bool operator==(const MemorySplit&) const = default;

 private:
  std::array<std::int64_t, kMemoryCategories.size()> bytes_{};
};

struct MemoryReport {
  MemorySplit current;
  std::int64_t peak_bytes = 0;  // most at once, all categories together
  MemorySplit at_peak;          // what peak_bytes was made of
  MemorySplit peaks;            // of each category alone, at moments of their own
};

// Any thread may call anything; entries cost two atomic additions. While several threads allocate
// at once, at_peak may hold what one of them was about to enter.
class MemoryLedger {
 public:
  void add(MemoryCategory category, std::int64_t bytes);
  void remove(MemoryCategory category, std::int64_t bytes);
  // Peaks are counted from now on.
  void reset_peak();
  MemoryReport report() const;

 private:
  MemorySplit current() const;

  struct Count {
    std::atomic<std::int64_t> current{0}, peak{0};
  };
  std::array<Count, kMemoryCategories.size()> counts_;
  std::atomic<std::int64_t> total_{0}, peak_total_{0};
  mutable std::mutex mutex_;
  MemorySplit at_peak_;  // guarded by mutex_, as are all writes of peak_total_
};

// The ledger of this process.
MemoryLedger& process_memory();

}  // namespace trireme
