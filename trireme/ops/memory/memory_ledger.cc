// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/memory_ledger.h"

#include <numeric>

namespace trireme {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

MemoryCategory& category_of_thread() {
  thread_local MemoryCategory category = MemoryCategory::kActivations;
  return category;
}

void raise_to(std::atomic<std::int64_t>& peak, std::int64_t value) {
  std::int64_t known = peak.load(kRelaxed);
  while (known < value && !peak.compare_exchange_weak(known, value, kRelaxed)) {
  }
}

}  // namespace

std::string_view memory_category_name(MemoryCategory category) {
  constexpr std::string_view kNames[] = {"weights", "gradients", "optimizer", "activations",
                                         "workspace"};
  return kNames[static_cast<std::size_t>(category)];
}

MemoryScope::MemoryScope(MemoryCategory category) : before_(category_of_thread()) {
  category_of_thread() = category;
}

MemoryScope::~MemoryScope() { category_of_thread() = before_; }

MemoryCategory current_memory_category() { return category_of_thread(); }

std::int64_t MemorySplit::total() const {
  return std::accumulate(bytes_.begin(), bytes_.end(), std::int64_t{0});
}

void MemoryLedger::add(MemoryCategory category, std::int64_t bytes) {
  Count& count = counts_[static_cast<std::size_t>(category)];
  raise_to(count.peak, count.current.fetch_add(bytes, kRelaxed) + bytes);
  const std::int64_t total = total_.fetch_add(bytes, kRelaxed) + bytes;
  if (total <= peak_total_.load(kRelaxed)) return;
  const std::lock_guard lock(mutex_);
  if (total <= peak_total_.load(kRelaxed)) return;  // another thread was here with more
  peak_total_.store(total, kRelaxed);
  at_peak_ = current();
}

void MemoryLedger::remove(MemoryCategory category, std::int64_t bytes) {
  counts_[static_cast<std::size_t>(category)].current.fetch_sub(bytes, kRelaxed);
  total_.fetch_sub(bytes, kRelaxed);
}

void MemoryLedger::reset_peak() {
  const std::lock_guard lock(mutex_);
  at_peak_ = current();
  peak_total_.store(at_peak_.total(), kRelaxed);
  for (Count& count : counts_) count.peak.store(count.current.load(kRelaxed), kRelaxed);
}

MemoryReport MemoryLedger::report() const {
  const std::lock_guard lock(mutex_);
  MemoryReport report{current(), peak_total_.load(kRelaxed), at_peak_, {}};
  for (const MemoryCategory c : kMemoryCategories) {
    report.peaks[c] = counts_[static_cast<std::size_t>(c)].peak.load(kRelaxed);
  }
  return report;
}

MemorySplit MemoryLedger::current() const {
  MemorySplit split;
  for (const MemoryCategory c : kMemoryCategories) {
    split[c] = counts_[static_cast<std::size_t>(c)].current.load(kRelaxed);
  }
  return split;
}

MemoryLedger& process_memory() {
  static auto* const ledger = new MemoryLedger;  // tensors of static objects end after main()
  return *ledger;
}

}  // namespace trireme
