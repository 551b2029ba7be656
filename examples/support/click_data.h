// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The clicks that a program trains on and those that it is judged by: of a log, or planted ones.
//
//   ClickData data = open_clicks({argv + 1, argv + argc}, worker, num_workers);
//   while (const auto batch = data.train()) ...
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "examples/support/click_batch.h"
#include "examples/support/click_generator.h"
#include "examples/support/click_log.h"

namespace trireme::examples {

// One batch after the other, and nothing after the last.
using ClickStream = std::function<std::optional<ClickBatch>()>;

// A stream of what ClickLog would give for a log of those samples. The generator outlives it.
ClickStream planted_clicks(const ClickGenerator& generator, const ClickRange& samples,
                           const ClickLogOptions& options);

struct ClickData {
  ClickStream train;     // this worker's part of all samples, once
  ClickStream held_out;  // all of them, for whoever asks
  // Samples of a step, over all workers.
  std::int64_t batch = 0;
  // The area under the curve that the planted rule itself reaches on what is held out; a log tells
  // none.
  std::optional<double> reachable = {};
};

// Takes an option and its value out of a program's arguments; nothing where it is not among them.
// Throws ConfigError where its value is missing.
std::optional<std::string> take_option(std::vector<std::string>& arguments,
                                       const std::string& option);

// What a program was told to learn from:
//   (nothing)         4 million planted samples, in which there are 12 million categories
//   --small           400 thousand planted samples, of at most 20 categories in a column
//   --log FILE FILE   a log, and one that is held out
// Throws ConfigError for anything else, and as ClickLog does.
ClickData open_clicks(const std::vector<std::string>& arguments, std::int64_t worker,
                      std::int64_t num_workers);

}  // namespace trireme::examples
