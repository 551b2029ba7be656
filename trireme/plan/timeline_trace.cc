// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/timeline_trace.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <ostream>

#include "trireme/base/check.h"

namespace trireme::plan {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& event) {
  return event.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json named(const char* what, int rank, int thread, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

const char* lane_of(Action action) {
  if (is_send(action)) return kSendLane;
  return is_receive(action) ? kReceiveLane : kComputeLane;
}

}  // namespace

TraceWriter::TraceWriter(std::ostream& output) : output_(output) {
  output_ << R"({"displayTimeUnit":"ms","traceEvents":[)";
}

TraceWriter::~TraceWriter() {
  try {
    close();
  } catch (...) {  // a stream that throws; its state says so too
  }
}

void TraceWriter::write(const std::string& event) {
  output_ << (first_ ? "\n" : ",\n") << event;
  first_ = false;
}

int TraceWriter::thread_of(int rank, const std::string& lane) {
  const auto [found, is_new] = threads_.try_emplace({rank, lane}, 0);
  if (!is_new) return found->second;
  const int thread = lanes_of_rank_[rank]++;
  found->second = thread;
  if (thread == 0) write(text_of(named("process_name", rank, 0, fmt::format("rank {}", rank))));
  write(text_of(named("thread_name", rank, thread, lane)));
  return thread;
}

void TraceWriter::add(const TraceSpan& span) {
  TRIREME_ASSERT(!closed_, "a span after close()");
  TRIREME_ASSERT(std::isfinite(span.start_us) && std::isfinite(span.duration_us), "span {}: {} us",
                 span.name, span.start_us);
  TRIREME_CHECK_LE(0, span.duration_us, "span {}", span.name);
  Json event = {{"ph", "X"},           {"name", span.name},
                {"pid", span.rank},    {"tid", thread_of(span.rank, span.lane)},
                {"ts", span.start_us}, {"dur", span.duration_us}};
  for (const auto& [key, value] : span.args) event["args"][key] = value;
  write(text_of(event));
}

void TraceWriter::close() {
  if (closed_) return;
  closed_ = true;
  output_ << "\n]}\n";
}

TraceSpan trace_span(int rank, const Instruction& instruction, double start_us, double end_us) {
  return {.rank = rank,
          .lane = lane_of(instruction.action),
          .name = to_string(instruction),
          .start_us = start_us,
          .duration_us = end_us - start_us,
          .args = {{"stage", std::to_string(instruction.stage)},
                   {"micro_batch", std::to_string(instruction.micro_batch)}}};
}

std::vector<TraceSpan> trace_spans(const ScheduleReport& report) {
  std::vector<TraceSpan> spans;
  for (std::size_t rank = 0; rank < report.ranks.size(); ++rank) {
    for (const Span& span : report.ranks[rank].timeline) {
      const Instruction& instruction = span.instruction;
      if (!has_micro_batch(instruction.action)) continue;
      spans.push_back(trace_span(static_cast<int>(rank), instruction, span.start_us, span.end_us));
    }
  }
  return spans;
}

}  // namespace trireme::plan
