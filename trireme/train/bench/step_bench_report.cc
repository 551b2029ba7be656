// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "trireme/comm/bench/build_info.h"
#include "trireme/topology/host.h"
#include "trireme/train/bench/step_bench.h"
#include "trireme/train/bench/timing.h"
#include "trireme/train/summary.h"

namespace trireme {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMs = 1e3;  // of a second

void add_spread(const std::string& name, const Spread& spread, Json& json) {
  json[name] = spread.median;
  json[name + "_p10"] = spread.p10;
  json[name + "_p90"] = spread.p90;
}

Json to_json(const StepPart& part) {
  return {{"name", part.name},
          {"ms", part.seconds * kMs},
          {"share", part.share},
          {"calls", part.calls},
          {"flops", part.flops}};
}

Json to_json(const ProductRate& rate) {
  return {{"name", rate.product.name},
          {"shape", rate.product.shape()},
          {"count", rate.product.count},
          {"flops", rate.product.needed_flops()},
          {"gflops_per_s", rate.flops_per_s / 1e9},
          {"limit_ms", rate.seconds() * kMs},
          {"engine", rate.engine}};
}

void add_limit(const StepBenchReport& report, Json& json) {
  const StepLimit& limit = report.limit;
  json["share_of_limit"] = report.share_of_limit();
  json["limit_ms"] = limit.seconds() * kMs;
  json["limit_products_ms"] = limit.product_seconds() * kMs;
  json["limit_optimizer_ms"] = limit.optimizer_seconds() * kMs;
  json["optimizer_bytes"] = limit.optimizer_bytes;
  json["memory_gb_per_s"] = limit.memory_bytes_per_s / 1e9;
  for (const ProductRate& rate : limit.rates) json["products"].push_back(to_json(rate));
}

std::string percent(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "unknown";
}

std::string with_spread(const Spread& spread, int decimals) {
  return fmt::format("{:.{}f} ({:.{}f} .. {:.{}f})", spread.median, decimals, spread.p10, decimals,
                     spread.p90, decimals);
}

double state_bytes_per_parameter(const StepBenchReport& report) {
  return static_cast<double>(report.state_bytes) / static_cast<double>(report.parameters);
}

Fields head(const StepBenchReport& report) {
  const StepBenchOptions& options = report.options;
  Fields fields = {
      {"model", fmt::format("{}, {} parameters", options.model, report.parameters)},
      {"step", fmt::format("{} x {} x {} x {} tokens (ranks, micro-batches, sequences), {}, {} "
                           "threads",
                           report.ranks, options.accumulate, options.batch, options.tokens,
                           options.dtype, report.threads)},
      {"timed", fmt::format("{} steps after {}", options.steps, options.warm_up_steps)},
      {"tokens/s", with_spread(rate_spread(report.tokens_per_step(), report.seconds), 1)},
      {"step ms", with_spread(scaled(report.seconds, kMs), 1)},
      {"GFLOP a step", report.flops / 1e9},
      {"GFLOP/s", report.flops / report.seconds.median / 1e9},
      {"in matrix products", percent(report.matrix_share())},
      {"weights MB", static_cast<double>(report.weight_bytes) / 1e6},
      {"activations MB, at most", static_cast<double>(report.activation_bytes) / 1e6},
      {"peak MB", static_cast<double>(report.peak_bytes) / 1e6}};
  if (report.ranks > options.tp * options.ep * options.pp) {
    const ExchangeCost& cost = report.exchange;
    fields.insert(
        fields.end(),
        {{"ZeRO stage", options.shard},
         {"state bytes/parameter", state_bytes_per_parameter(report)},
         {"sent bytes/parameter", cost.bytes_sent / static_cast<double>(report.parameters)},
         {"communication ms", with_spread(scaled(cost.communication_us, 1e-3), 1)},
         {"exposed ms", with_spread(scaled(cost.exposed_us, 1e-3), 1)},
         {"exposed share", percent(cost.exposed_share())}});
  }
  if (options.tp * options.cp * options.ep > 1) {
    fields.emplace_back(
        "cut", fmt::format("ep {} x cp {} ({}) x tp {}{}", options.ep, options.cp,
                           options.cp_method, options.tp, options.sequence ? ", sequence" : ""));
    fields.emplace_back("sent for activations, MB", report.exchange.activation_bytes_sent / 1e6);
  }
  if (options.pp > 1) {
    fields.emplace_back("pipeline",
                        fmt::format("pp {}, {}, blocks of stages {}", options.pp, options.schedule,
                                    fmt::join(report.pipeline.blocks, " ")));
    fields.emplace_back("bubble, %", with_spread(scaled(report.pipeline.bubble, 100), 1));
    fields.emplace_back("planned bubble, %", 100 * report.pipeline.planned_bubble);
    fields.emplace_back("sent for activations, MB", report.exchange.activation_bytes_sent / 1e6);
  }
  if (report.replicas > 1) {
    fields.emplace_back("copies of the model", fmt::format("{}, of {} ranks each", report.replicas,
                                                           report.ranks / report.replicas));
    fields.emplace_back(
        "sent between copies, bytes/parameter",
        report.exchange.bytes_sent_between_replicas / static_cast<double>(report.parameters));
  }
  if (!report.limit.rates.empty()) {
    fields.emplace_back("of limit", percent(report.share_of_limit()));
    fields.emplace_back(
        "limit ms",
        fmt::format("{:.1f}: products {:.1f}, optimizer {:.1f} at {:.1f} GB/s",
                    report.limit.seconds() * kMs, report.limit.product_seconds() * kMs,
                    report.limit.optimizer_seconds() * kMs, report.limit.memory_bytes_per_s / 1e9));
  }
  return fields;
}

std::string parts_table(const StepBenchReport& report) {
  std::string text =
      fmt::format("{:<28}{:>10}{:>9}{:>8}{:>10}\n", "part", "ms", "share", "calls", "GFLOP/s");
  for (const StepPart& part : report.parts) {
    const std::string rate =
        part.flops > 0 ? fmt::format("{:.1f}", part.flops / part.seconds / 1e9) : "-";
    text += fmt::format("{:<28}{:>10.2f}{:>9}{:>8.6g}{:>10}\n", part.name, part.seconds * kMs,
                        percent(part.share), part.calls, rate);
  }
  return text;
}

std::string products_table(const StepLimit& limit) {
  std::string text = fmt::format("{:<20}{:<36}{:>6}{:>10}{:>11}  {}\n", "product", "shape", "count",
                                 "GFLOP/s", "limit ms", "engine");
  for (const ProductRate& rate : limit.rates) {
    text += fmt::format("{:<20}{:<36}{:>6}{:>10.1f}{:>11.2f}  {}\n", rate.product.name,
                        rate.product.shape(), rate.product.count, rate.flops_per_s / 1e9,
                        rate.seconds() * kMs, rate.engine);
  }
  return text;
}

constexpr char kSweepRow[] = "{:>6}{:>7}{:>12}{:>12}{:>12}{:>11}{:>10}{:>10}{:>10}\n";

}  // namespace

std::string to_json(const StepBenchReport& report) {
  const StepBenchOptions& options = report.options;
  Json json = {{"model", options.model},
               {"parameters", report.parameters},
               {"dtype", options.dtype},
               {"batch", options.batch},
               {"seq", options.tokens},
               {"steps", options.steps},
               {"warm_up", options.warm_up_steps},
               {"threads", report.threads},
               {"loss", report.loss},
               {"ranks", report.ranks},
               {"accumulate", options.accumulate},
               {"shard", options.shard},
               {"shard_ranks", options.shard_ranks},
               {"tp", options.tp},
               {"sequence", options.sequence},
               {"tp_chunks", options.tp_chunks},
               {"cp", options.cp},
               {"cp_method", options.cp_method},
               {"ep", options.ep},
               {"pp", options.pp},
               {"state_bytes_per_parameter", state_bytes_per_parameter(report)},
               {"bytes_sent", report.exchange.bytes_sent},
               {"bytes_sent_between_replicas", report.exchange.bytes_sent_between_replicas},
               {"activation_bytes_sent", report.exchange.activation_bytes_sent},
               {"weight_bytes", report.weight_bytes},
               {"activation_bytes", report.activation_bytes},
               {"exposed_share", report.exchange.exposed_share()}};
  if (options.pp > 1) {
    json["schedule"] = options.schedule;
    json["stage_blocks"] = report.pipeline.blocks;
    json["planned_bubble"] = report.pipeline.planned_bubble;
    add_spread("bubble", report.pipeline.bubble, json);
  }
  add_spread("communication_ms", scaled(report.exchange.communication_us, 1e-3), json);
  add_spread("exposed_ms", scaled(report.exchange.exposed_us, 1e-3), json);
  add_spread("tokens_per_s", rate_spread(report.tokens_per_step(), report.seconds), json);
  add_spread("step_ms", scaled(report.seconds, kMs), json);
  json["flops_per_step"] = report.flops;
  json["gflops_per_s"] = report.flops / report.seconds.median / 1e9;
  json["matrix_share"] = report.matrix_share();
  json["other_share"] = 1 - report.matrix_share();
  json["flops_in_parts"] = report.flops_in_parts();
  for (const StepPart& part : report.parts) json["parts"].push_back(to_json(part));
  json["peak_bytes"] = report.peak_bytes;
  if (!report.limit.rates.empty()) add_limit(report, json);
  json["machine"] = this_host().cpu.model;
  json["commit"] = build_commit();
  return json.dump() + "\n";
}

std::string to_table(const StepBenchReport& report) {
  std::string text = format_table(head(report)) + "\n" + parts_table(report);
  if (!report.limit.rates.empty()) text += "\n" + products_table(report.limit);
  return text;
}

std::string sweep_header() {
  return fmt::format(kSweepRow, "batch", "seq", "tokens/s", "p10", "p90", "step ms", "GFLOP/s",
                     "of limit", "peak MB");
}

std::string to_sweep_row(const StepBenchReport& report) {
  const Spread tokens = rate_spread(report.tokens_per_step(), report.seconds);
  const auto number = [](double value) { return fmt::format("{:.1f}", value); };
  return fmt::format(kSweepRow, report.options.batch, report.options.tokens, number(tokens.median),
                     number(tokens.p10), number(tokens.p90), number(report.seconds.median * kMs),
                     number(report.flops / report.seconds.median / 1e9),
                     report.limit.rates.empty() ? "-" : percent(report.share_of_limit()),
                     fmt::format("{:.0f}", static_cast<double>(report.peak_bytes) / 1e6));
}

}  // namespace trireme
