// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/pipeline_config.h"

#include <charconv>

#include "trireme/base/error.h"

namespace trireme {

void PipelineConfig::visit(ConfigFields& f) {
  f.field("schedule", schedule,
          "who computes what when: gpipe, 1f1b, interleaved, zb-h1, zbv, dualpipev, or a CSV file "
          "with a row for each worker");
  f.field("chunks", chunks,
          "interleaved: stages of each worker; 0: 2 there, and as many as the schedule has "
          "elsewhere");
  f.field("layers", layers,
          "blocks of each stage, in the order of computation; empty: cut so that all workers have "
          "as much to do");
  f.field("balance", balance,
          "how long layers take, for cutting them: estimate, from their sizes; measure, on the "
          "first worker before the run begins",
          {"estimate", "measure"});
  f.field("trace_step", trace_step,
          "the step of a run whose timeline is written to pipeline_trace.json; 0: none");
}

void PipelineConfig::validate(std::int64_t pp) const {
  if (pp == 1 && is_given()) {
    throw_error<ConfigError>(
        "parallel.pipeline says how a pipeline's stages work, but parallel.pp is 1 and there is "
        "none: leave it out, or set parallel.pp to 2 or more");
  }
  if (chunks < 0) throw_error<ConfigError>("parallel.pipeline.chunks is {}: at least 0", chunks);
  if (chunks > 0 && is_file()) {
    throw_error<ConfigError>(
        "parallel.pipeline.chunks is {}, but {} says which stages a worker has: leave it out",
        chunks, schedule);
  }
  if (trace_step < 0) {
    throw_error<ConfigError>("parallel.pipeline.trace_step is {}: at least 0", trace_step);
  }
  layer_counts();
}

bool PipelineConfig::is_given() const {
  const PipelineConfig usual;
  return schedule != usual.schedule || chunks != usual.chunks || layers != usual.layers ||
         balance != usual.balance || trace_step != usual.trace_step;
}

std::vector<std::int64_t> PipelineConfig::layer_counts() const {
  std::vector<std::int64_t> counts;
  for (const std::string& text : layers) {
    std::int64_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count < 1) {
      throw_error<ConfigError>(
          "parallel.pipeline.layers has '{}': blocks of a stage are a whole number, at least 1",
          text);
    }
    counts.push_back(count);
  }
  return counts;
}

}  // namespace trireme
