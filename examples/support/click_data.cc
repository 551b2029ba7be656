// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "examples/support/auc.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

struct PlantedOptions {
  std::int64_t samples = 0;
  std::int64_t held_out = 0;
  std::int64_t batch = 0;
  std::int64_t most_categories = 0;  // of a column
};
constexpr PlantedOptions kWhole = {4'000'000, 200'000, 4096, std::int64_t{1} << 32};
constexpr PlantedOptions kSmall = {400'000, 50'000, 512, 20};

// Kept alive by the streams.
ClickData plant(const PlantedOptions& planted, std::int64_t worker, std::int64_t num_workers) {
  ClickGeneratorOptions options;
  for (ClickColumn& column : options.columns) {
    column.cardinality = std::min(column.cardinality, planted.most_categories);
  }
  const auto clicks = std::make_shared<const ClickGenerator>(options);
  const ClickRange train = {.first = 0, .count = planted.samples};
  const ClickRange held_out = {.first = planted.samples, .count = planted.held_out};
  const PlantedClicks known = clicks->make(held_out);
  Auc reachable;
  reachable.add(known.logits, known.batch.labels);
  const auto keep = [&](ClickStream stream) {
    return [clicks, stream = std::move(stream)] { return stream(); };
  };
  return {keep(planted_clicks(*clicks, train, {planted.batch, worker, num_workers})),
          keep(planted_clicks(*clicks, held_out, {.batch = planted.batch})), planted.batch,
          reachable.value()};
}

ClickStream log_stream(const std::string& path, const ClickLogOptions& options) {
  return [log = std::make_shared<ClickLog>(path, options)] { return log->next(); };
}

}  // namespace

ClickStream planted_clicks(const ClickGenerator& generator, const ClickRange& samples,
                           const ClickLogOptions& options) {
  return [&generator, samples, options,
          begin = std::int64_t{0}]() mutable -> std::optional<ClickBatch> {
    if (begin >= samples.count) return {};
    const std::int64_t end = std::min(begin + options.batch, samples.count);
    const auto mine_below = [&](std::int64_t count) {
      return (count - options.worker + options.num_workers - 1) / options.num_workers;
    };
    const std::int64_t first = mine_below(begin), last = mine_below(end);
    const std::int64_t sample = options.worker + first * options.num_workers;
    begin = end;
    return generator
        .make({samples.first + sample * samples.stride, last - first,
               samples.stride * options.num_workers})
        .batch;
  };
}

std::optional<std::string> take_option(std::vector<std::string>& arguments,
                                       const std::string& option) {
  const auto found = std::find(arguments.begin(), arguments.end(), option);
  if (found == arguments.end()) return {};
  if (found + 1 == arguments.end()) throw_error<ConfigError>("{} needs a value", option);
  const std::string value = *(found + 1);
  arguments.erase(found, found + 2);
  return value;
}

ClickData open_clicks(const std::vector<std::string>& arguments, std::int64_t worker,
                      std::int64_t num_workers) {
  if (arguments.empty()) return plant(kWhole, worker, num_workers);
  if (arguments.size() == 1 && arguments[0] == "--small") {
    return plant(kSmall, worker, num_workers);
  }
  if (arguments.size() == 3 && arguments[0] == "--log") {
    const std::int64_t batch = kWhole.batch;
    return {log_stream(arguments[1], {batch, worker, num_workers}),
            log_stream(arguments[2], {.batch = batch}), batch};
  }
  throw_error<ConfigError>("arguments '{}': give --log FILE FILE, or --small, or none",
                           fmt::join(arguments, " "));
}

}  // namespace trireme::examples
