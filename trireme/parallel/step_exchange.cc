// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/step_exchange.h"

#include <algorithm>

#include "trireme/comm/group.h"
#include "trireme/parallel/communication_thread.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

}  // namespace

// The sums: weight, users of each parameter, the last step's wait of each rank.
void StepAccount::close(CommunicationThread& thread) {
  std::vector<double> sums{weight_};
  sums.insert(sums.end(), used_.begin(), used_.end());
  sums.resize(sums.size() + static_cast<std::size_t>(thread.group().size()));
  sums[1 + used_.size() + static_cast<std::size_t>(thread.group().rank())] = wait_us_;
  thread.post([&sums](Group& group) { group.all_reduce(buffer_of(std::span(sums))); });
  const auto begin = Clock::now();
  thread.wait_for_all();
  wait_us_ = microseconds(Clock::now() - begin);
  const std::chrono::nanoseconds busy = thread.busy();
  report_ = {};
  report_.communication_us = microseconds(busy - std::exchange(busy_before_, busy));
  report_.exposed_us = wait_us_;
  take_sums(sums);
  ++steps_;
  weight_ = 0;
  std::fill(used_.begin(), used_.end(), 0.0);
}

void StepAccount::take_sums(const std::vector<double>& sums) {
  report_.weight = sums[0];
  if (steps_ > 0) describe_skew(std::span(sums).subspan(1 + names_.size()), report_);
  unused_.clear();
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (sums[1 + i] != 0) continue;
    unused_.push_back(i);
    report_.unused.push_back(names_[i]);
  }
}

void describe_skew(std::span<const double> wait_us, StepReport& report) {
  const auto [least, most] = std::minmax_element(wait_us.begin(), wait_us.end());
  report.waited_for_rank = static_cast<int>(least - wait_us.begin());
  report.skew_us = *most - *least;
}

std::vector<std::size_t> roots_order(Group& group, const std::vector<std::size_t>& order) {
  std::vector<std::int64_t> numbers(order.begin(), order.end());
  group.broadcast(buffer_of(std::span(numbers)), 0);
  return {numbers.begin(), numbers.end()};
}

}  // namespace trireme
