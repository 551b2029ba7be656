// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Training of jobs in tests: parameters, gradients that are distinct for each rank, step and
// element, and what a worker has when it is done.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trireme/ps/worker.h"

namespace trireme::ps {

constexpr std::int64_t kDenseSize = 11 * kShardBlock;
constexpr double kLearningRate = 0.01;

// Four ranges, of which the last is shorter; three parameters with gaps between them.
JobLayout dense_layout(const std::string& optimizer = "adamw");
// And two tables in three slices.
JobLayout mixed_layout(const std::string& optimizer = "adamw");

float first_weight(std::int64_t i);
float gradient_of(int rank, std::int64_t step, std::int64_t i);

// What one optimizer makes of dense_layout() when these ranks contribute to each step.
std::vector<float> reference(const JobLayout& layout,
                             const std::vector<std::vector<int>>& contributors);
// All ranks to all steps.
std::vector<float> reference(const JobLayout& layout, int ranks, std::int64_t steps);

struct Script {
  enum class Style : std::uint8_t {
    kWhole,    // all ranges at once, and the next weights with the answer
    kByRange,  // one after the other, with priorities; half of the weights are pulled
    kSparing,  // not all workers contribute to all ranges
  };
  Style style = Style::kWhole;
  std::int64_t steps = 6;
  // Before each call.
  std::function<void()> event = [] {};
};

// What the servers hold.
struct Values {
  std::vector<float> weights;
  std::vector<float> rows;  // of all ids that anybody pushed, table after table
};
// Bit for bit.
bool operator==(const Values& left, const Values& right);

// For processes of one job.
std::string hash_of(const Values& values);
// Of "whole", "by_range" and "two_phases": mixed_layout(), and how to train it.
JobLayout layout_of_style(const std::string& style);
Script script_of_style(const std::string& style, std::int64_t steps);

// The first values come from rank 0.
void begin(Worker& worker);
// From the worker's step on; then what there is after all of them. Where the layout has two phases
// the sum's norm scales the gradients.
Values train(Worker& worker, const Script& script);

}  // namespace trireme::ps
