// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Timelines as Chrome trace JSON, for chrome://tracing and Perfetto: simulated ones and measured
// ones in one form. A process for each rank, a thread for each of its lanes.
//
//   TraceWriter trace(file);
//   for (const TraceSpan& span : trace_spans(report)) trace.add(span);
//   trace.close();
#pragma once

#include <iosfwd>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {

// Lanes of trace_spans().
inline constexpr const char* kComputeLane = "compute";
inline constexpr const char* kSendLane = "send";
inline constexpr const char* kReceiveLane = "receive";
// Of measured timelines: what a rank waited for before an instruction.
inline constexpr const char* kWaitLane = "wait";

// What a rank did from start to start + duration.
struct TraceSpan {
  int rank = 0;
  std::string lane = kComputeLane;
  std::string name = {};
  double start_us = 0;  // from a point in time that all ranks share
  double duration_us = 0;
  std::vector<std::pair<std::string, std::string>> args = {};  // shown with the span
};

// Writes spans as they come and keeps none. One thread at a time.
class TraceWriter {
 public:
  // The output must outlive this. Whether all was written is for its state to say.
  explicit TraceWriter(std::ostream& output);
  ~TraceWriter();  // close()
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  // Spans of one lane may come in any order. Bytes that are no UTF-8 become U+FFFD. Throws
  // InternalError for a time that is no number, for a duration below 0 and after close().
  void add(const TraceSpan& span);
  // Completes the JSON; again does nothing.
  void close();

 private:
  // The lane's thread number; names it, and the rank, the first time.
  int thread_of(int rank, const std::string& lane);
  void write(const std::string& event);

  std::ostream& output_;
  std::map<std::pair<int, std::string>, int> threads_;
  std::map<int, int> lanes_of_rank_;
  bool first_ = true;
  bool closed_ = false;
};

// Of an instruction with a micro-batch, in the lane of its kind, with the stage and micro-batch as
// args.
TraceSpan trace_span(int rank, const Instruction& instruction, double start_us, double end_us);

// The report's timelines: compute, sends and receives in three lanes, with the stage and
// micro-batch of each as args.
std::vector<TraceSpan> trace_spans(const ScheduleReport& report);

}  // namespace trireme::plan
