// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/run_log.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "trireme/base/log.h"
#include "trireme/ops/memory/caching_allocator.h"

namespace trireme {
namespace {

std::string memory_key(MemoryCategory category) {
  return fmt::format("memory_peak_{}_bytes", memory_category_name(category));
}

void append_peak(Fields& fields, const MemoryReport& memory) {
  fields.emplace_back("memory_peak_bytes", memory.peak_bytes);
  for (const MemoryCategory category : kMemoryCategories) {
    fields.emplace_back(memory_key(category), memory.at_peak[category]);
  }
}

void log_memory(const MemoryReport& memory) {
  constexpr double kMiB = 1 << 20;
  std::string parts;
  for (const MemoryCategory category : kMemoryCategories) {
    parts += fmt::format("{}{} {:.1f}", parts.empty() ? "" : ", ", memory_category_name(category),
                         static_cast<double>(memory.at_peak[category]) / kMiB);
  }
  log_info("memory: {:.1f} MiB at the peak of a step ({}); {:.1f} MiB held from the system",
           static_cast<double>(memory.peak_bytes) / kMiB, parts,
           static_cast<double>(caching_allocator_stats().mapped_bytes) / kMiB);
}

std::string progress_text(const StepStats& stats, double tokens_per_s) {
  const std::int64_t skipped = stats.guard.non_finite + stats.guard.spikes;
  return fmt::format("loss {:.4f}  {:.0f} tokens/s{}", stats.loss, tokens_per_s,
                     skipped > 0 ? fmt::format("  {} skipped", skipped) : "");
}

}  // namespace

RunLog::RunLog(const RunFolder& folder, const RunLogOptions& options)
    : folder_(folder),
      options_(options),
      metrics_(folder.metrics()),
      events_(folder.path(), options.start_step),
      progress_("training", options.total_steps, "steps", options.start_step) {
  metrics_.truncate_after(options.start_step);
}

double RunLog::tokens_per_s(std::int64_t steps, double seconds) const {
  return seconds > 0 ? static_cast<double>(steps * options_.tokens_per_step) / seconds : 0;
}

double RunLog::share_of_limit(double tokens_per_s) const {
  return options_.limit_flops_per_s > 0
             ? tokens_per_s * options_.flops_per_token / options_.limit_flops_per_s
             : 0;
}

void RunLog::step(std::int64_t step, const StepStats& stats, double seconds) {
  ++steps_;
  seconds_ += seconds;
  const double rate = tokens_per_s(1, seconds);
  const MemoryReport memory = memory_since_last();
  Fields fields = {{"step", step},
                   {"loss", stats.loss},
                   {"gradient_norm", stats.gradient_norm},
                   {"learning_rate", stats.learning_rate},
                   {"skipped", stats.verdict != optim::StepVerdict::kApply},
                   {"skipped_non_finite", stats.guard.non_finite},
                   {"skipped_spikes", stats.guard.spikes},
                   {"tokens_per_s", rate},
                   {"share_of_limit", share_of_limit(rate)},
                   {"memory_current_bytes", memory.current.total()}};
  append_peak(fields, memory);
  fields.insert(fields.end(), {{"communication_us", stats.exchange.communication_us},
                               {"exposed_us", stats.exchange.exposed_us},
                               {"waited_for_rank", std::int64_t{stats.exchange.waited_for_rank}},
                               {"skew_us", stats.exchange.skew_us}});
  metrics_.append(fields);
  events_.append(step, fields);
  if (steps_ == 2) {  // the first also has what only the start needs
    progress_.clear();
    log_memory(memory);
  }
  if (stats.verdict != optim::StepVerdict::kApply) {
    progress_.clear();
    log_warn("{}", optim::describe_skipped(step - 1, stats.verdict, stats.loss, stats.gradient_norm,
                                           stats.guard));
  }
  progress_.update(step, progress_text(stats, rate));
}

MemoryReport RunLog::memory_since_last() {
  const MemoryReport memory = process_memory().report();
  process_memory().reset_peak();
  if (memory.peak_bytes > memory_.peak_bytes) memory_ = memory;
  return memory;
}

void RunLog::evaluation(std::int64_t step, const Evaluation& evaluation) {
  const Fields fields = {{"step", step},
                         {"validation_loss", evaluation.loss},
                         {"unigram_entropy", evaluation.unigram_entropy},
                         {"perplexity", evaluation.perplexity()}};
  metrics_.append(fields);
  events_.append(step, fields);
  progress_.clear();
  log_info("step {}: validation loss {:.4f} (unigram entropy {:.4f}), perplexity {:.2f}", step,
           evaluation.loss, evaluation.unigram_entropy, evaluation.perplexity());
}

void RunLog::checkpoint(std::int64_t step, const std::string& path) {
  progress_.clear();
  log_info("step {}: saved {}", step, path);
}

void RunLog::interrupted(std::int64_t step) {
  progress_.clear();
  log_warn("stopped by a signal after step {}; continue with --resume out={}", step,
           folder_.path());
}

void RunLog::summary(Fields facts, const Evaluation& evaluation) {
  progress_.finish();
  const double rate = tokens_per_s(steps_, seconds_);
  memory_since_last();  // of the last evaluation
  Fields fields = std::move(facts);
  fields.insert(fields.end(), {{"training_seconds", seconds_},
                               {"tokens_per_s", rate},
                               {"limit_gflop_per_s", options_.limit_flops_per_s / 1e9},
                               {"share_of_limit", share_of_limit(rate)},
                               {"validation_tokens", evaluation.tokens},
                               {"validation_loss", evaluation.loss},
                               {"unigram_entropy", evaluation.unigram_entropy},
                               {"gain_nats", evaluation.unigram_entropy - evaluation.loss}});
  append_peak(fields, memory_);
  write_summary(folder_.summary(), fields);
  std::fputs(format_table(fields).c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace trireme
