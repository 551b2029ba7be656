// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/step_parts.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "trireme/base/check.h"

namespace trireme {
namespace detail {

constinit thread_local StepParts* recording = nullptr;

}  // namespace detail

namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

StepParts::StepParts() : StepParts(steady_seconds) {}

StepParts::StepParts(Clock clock) : clock_(std::move(clock)) {}

StepParts::~StepParts() {
  if (detail::recording == this) detail::recording = nullptr;
}

void StepParts::start() {
  TRIREME_ASSERT(detail::recording == nullptr, "this thread records the parts of a step already");
  totals_ = {{.name = kRestOfStep, .calls = 1}};
  open_ = {0};
  detail::recording = this;
  since_ = clock_();
}

std::vector<PartTotal> StepParts::stop() {
  TRIREME_ASSERT(detail::recording == this, "this thread has not started this recorder");
  TRIREME_CHECK_EQ(open_.size(), 1U, "only the rest of the step is open when recording stops");
  count_until_now();
  detail::recording = nullptr;
  return std::move(totals_);
}

void StepParts::enter(std::string_view name, double flops) {
  count_until_now();
  auto total = std::find_if(totals_.begin(), totals_.end(),
                            [&](const PartTotal& one) { return one.name == name; });
  if (total == totals_.end()) total = totals_.insert(total, {.name = name});
  ++total->calls;
  total->flops += flops;
  open_.push_back(static_cast<std::size_t>(total - totals_.begin()));
}

void StepParts::leave() {
  count_until_now();
  open_.pop_back();
}

void StepParts::count_until_now() {
  const double now = clock_();
  totals_[open_.back()].seconds += now - since_;
  since_ = now;
}

}  // namespace trireme
