// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StepAccount: what ranks tell one another at the end of each step beside gradients (one small
// all_reduce), and what the step cost.
//
//   account.add_weight(8);  account.saw(entry);  // while the step goes on
//   account.close(thread);                       // waits for all that travels
//   account.report().exposed_us;
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

class CommunicationThread;
class Group;

// What a step cost, and what was seen in it. The same on all ranks but for the times.
struct StepReport {
  // Time in which this rank's communication was under way, and the part of it in which the rank
  // did nothing else: finish_gradients() waited.
  double communication_us = 0;
  double exposed_us = 0;
  // Of the step before: the rank for which the others waited, and how long the one that waited
  // longest did so beyond it. -1 in the first step.
  int waited_for_rank = -1;
  double skew_us = 0;
  double weight = 0;  // the sum of all micro-batches' weights
  // Parameters that had no gradient on any rank.
  std::vector<std::string> unused;
};

// Not thread-safe. All ranks make one alike.
class StepAccount {
 public:
  // names: of the parameters, by entry.
  explicit StepAccount(std::vector<std::string> names)
      : names_(std::move(names)), used_(names_.size()) {}

  void add_weight(double weight) { weight_ += weight; }
  // The entry had a gradient on this rank.
  void saw(std::size_t entry) { used_[entry] = 1; }
  // Posts the exchange, waits until everything posted is done, and begins the next step.
  // Collective, blocking; 8 bytes for each parameter and rank. Throws what ended a task.
  void close(CommunicationThread& thread);

  // Of the last step.
  const StepReport& report() const { return report_; }
  const std::vector<std::size_t>& unused() const { return unused_; }  // entries
  std::int64_t steps() const { return steps_; }

 private:
  void take_sums(const std::vector<double>& sums);

  const std::vector<std::string> names_;
  std::vector<double> used_;
  double weight_ = 0;
  StepReport report_;
  std::vector<std::size_t> unused_;
  std::int64_t steps_ = 0;
  double wait_us_ = 0;  // of the last step
  std::chrono::nanoseconds busy_before_{0};
};

// Fills waited_for_rank and skew_us from the waits of all ranks: who waited least came last.
void describe_skew(std::span<const double> wait_us, StepReport& report);

// Rank 0's order, on all ranks. Collective, blocking.
std::vector<std::size_t> roots_order(Group& group, const std::vector<std::size_t>& order);

}  // namespace trireme
