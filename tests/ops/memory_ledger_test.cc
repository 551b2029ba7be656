// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/memory_ledger.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace trireme {
namespace {

using enum MemoryCategory;

TEST(MemoryLedger, PeakKeepsTheSplitOfItsMoment) {
  MemoryLedger ledger;
  ledger.add(kWeights, 100);
  ledger.add(kActivations, 50);
  ledger.remove(kActivations, 50);
  ledger.add(kGradients, 30);
  ledger.add(kWorkspace, 7);
  ledger.remove(kWeights, 60);
  const MemoryReport report = ledger.report();
  EXPECT_EQ(report.current[kWeights], 40);
  EXPECT_EQ(report.current.total(), 77);
  EXPECT_EQ(report.peak_bytes, 150);
  EXPECT_EQ(report.at_peak[kWeights], 100);
  EXPECT_EQ(report.at_peak[kActivations], 50);
  EXPECT_EQ(report.at_peak[kGradients], 0) << "not there at that moment";
  EXPECT_EQ(report.peaks[kGradients], 30);
  EXPECT_EQ(report.peaks[kWeights], 100);
  EXPECT_EQ(report.peaks[kOptimizer], 0);
}

TEST(MemoryLedger, ResetPeakStartsFromWhatIsThere) {
  MemoryLedger ledger;
  ledger.add(kOptimizer, 500);
  ledger.remove(kOptimizer, 480);
  ledger.reset_peak();
  EXPECT_EQ(ledger.report().peak_bytes, 20);
  EXPECT_EQ(ledger.report().peaks[kOptimizer], 20);
  ledger.add(kWeights, 3);
  EXPECT_EQ(ledger.report().peak_bytes, 23);
  EXPECT_EQ(ledger.report().at_peak[kOptimizer], 20);
}

TEST(MemoryLedger, ScopesNestAndBelongToTheirThread) {
  EXPECT_EQ(current_memory_category(), kActivations);
  {
    const MemoryScope weights(kWeights);
    {
      const MemoryScope workspace(kWorkspace);
      EXPECT_EQ(current_memory_category(), kWorkspace);
    }
    EXPECT_EQ(current_memory_category(), kWeights);
    std::thread([] { EXPECT_EQ(current_memory_category(), kActivations); }).join();
  }
  EXPECT_EQ(current_memory_category(), kActivations);
}

TEST(MemoryLedger, ThreadsLoseNothing) {
  MemoryLedger ledger;
  std::vector<std::thread> threads;
  for (std::int64_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&ledger, t] {
      for (int i = 0; i < 2000; ++i) {
        ledger.add(kActivations, 10 * t);
        ledger.add(kGradients, t);
        ledger.remove(kActivations, 10 * t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const MemoryReport report = ledger.report();
  EXPECT_EQ(report.current[kActivations], 0);
  EXPECT_EQ(report.current[kGradients], 2000 * (1 + 2 + 3 + 4));
  EXPECT_GE(report.peak_bytes, 20000);
  EXPECT_LE(report.peak_bytes, 20000 + 100);
  EXPECT_LE(report.peaks[kActivations], 100);
}

TEST(MemoryLedger, NamesAreThoseOfTheMetrics) {
  std::vector<std::string_view> names;
  for (const MemoryCategory category : kMemoryCategories) {
    names.push_back(memory_category_name(category));
  }
  EXPECT_EQ(names, (std::vector<std::string_view>{"weights", "gradients", "optimizer",
                                                  "activations", "workspace"}));
}

}  // namespace
}  // namespace trireme
