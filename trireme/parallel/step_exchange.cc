// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/step_exchange.h"

#include <algorithm>
#include <span>

#include "trireme/comm/group.h"

namespace trireme {

StepNotes exchange_notes(Group& group, const StepNotes& own) {
  std::vector<double> all{own.weight};
  all.insert(all.end(), own.used.begin(), own.used.end());
  all.insert(all.end(), own.wait_us.begin(), own.wait_us.end());
  group.all_reduce(buffer_of(std::span(all)));
  const auto used_end = all.begin() + 1 + static_cast<std::ptrdiff_t>(own.used.size());
  return {all[0], {all.begin() + 1, used_end}, {used_end, all.end()}};
}

void describe_skew(const std::vector<double>& wait_us, StepReport& report) {
  const auto [least, most] = std::minmax_element(wait_us.begin(), wait_us.end());
  report.waited_for_rank = static_cast<int>(least - wait_us.begin());
  report.skew_us = *most - *least;
}

}  // namespace trireme
