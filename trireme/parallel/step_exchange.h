// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StepExchange: what ranks tell one another at the end of each step beside gradients: one small
// all_reduce.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace trireme {

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

// One rank's part, and after exchange() the sums over ranks.
struct StepNotes {
  double weight = 0;
  std::vector<double> used;     // by parameter: 1 where this rank had a gradient
  std::vector<double> wait_us;  // by rank: this rank's of the last step, 0 for others
};

// Sums every field over the ranks. Collective, blocking; 8 bytes for each number.
StepNotes exchange_notes(Group& group, const StepNotes& own);

// Fills waited_for_rank and skew_us from the waits of all ranks: who waited least came last.
void describe_skew(const std::vector<double>& wait_us, StepReport& report);

}  // namespace trireme
