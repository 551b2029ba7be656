// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/pipeline_timeline.h"

#include <cstddef>
#include <span>
#include <sstream>
#include <utility>

#include "trireme/base/log.h"
#include "trireme/checkpoint/atomic_file.h"
#include "trireme/comm/group.h"
#include "trireme/plan/timeline_stats.h"
#include "trireme/train/compare_schedules.h"

namespace trireme {
namespace {

constexpr std::size_t kTimes = 3;  // of an instruction

}  // namespace

std::vector<plan::TraceSpan> timeline_of(int rank, const std::vector<InstructionSpan>& spans) {
  std::vector<plan::TraceSpan> timeline;
  for (const InstructionSpan& span : spans) {
    if (!plan::has_micro_batch(span.instruction.action)) continue;
    timeline.push_back(plan::trace_span(rank, span.instruction, span.ready_us, span.end_us));
    if (span.ready_us <= span.start_us) continue;
    timeline.push_back(plan::trace_span(rank, span.instruction, span.start_us, span.ready_us));
    timeline.back().lane = plan::kWaitLane;
  }
  return timeline;
}

std::vector<plan::TraceSpan> gather_timeline(const plan::Schedule& schedule, const PipelineRun& run,
                                             Group& pp) {
  std::size_t instructions = 0;
  std::vector<std::size_t> first;  // by rank, its place among all ranks'
  for (const auto& of_rank : schedule.of_rank) {
    first.push_back(instructions);
    instructions += of_rank.size();
  }
  std::vector<double> times(kTimes * instructions, 0.0);
  auto out = times.begin() +
             static_cast<std::ptrdiff_t>(kTimes * first[static_cast<std::size_t>(pp.rank())]);
  for (const InstructionSpan& span : run.spans) {
    for (const double time : {span.start_us, span.ready_us, span.end_us}) *out++ = time;
  }
  pp.all_reduce(buffer_of(std::span(times)));
  std::vector<plan::TraceSpan> timeline;
  for (std::size_t rank = 0; rank < first.size(); ++rank) {
    std::vector<InstructionSpan> spans;
    for (const plan::Instruction& instruction : schedule.of_rank[rank]) {
      const double* const time = times.data() + kTimes * (first[rank] + spans.size());
      spans.push_back({instruction, time[0], time[1], time[2]});
    }
    for (plan::TraceSpan& span : timeline_of(static_cast<int>(rank), spans)) {
      timeline.push_back(std::move(span));
    }
  }
  return timeline;
}

void write_timeline(const std::string& file, const std::vector<plan::TraceSpan>& spans,
                    const plan::ScheduleReport& planned) {
  std::ostringstream text;
  plan::TraceWriter trace(text);
  for (const plan::TraceSpan& span : spans) trace.add(span);
  trace.close();
  write_file_atomically(file, text.str());
  double bubble = 0;
  const std::vector<plan::RankUse> uses = plan::rank_uses(spans);
  for (const plan::RankUse& use : uses) bubble += use.bubble / static_cast<double>(uses.size());
  log_info("pipeline: bubble {:.1f} % in this step, {:.1f} % planned; its timeline is {}",
           100 * bubble, 100 * bubble_of(planned), file);
}

}  // namespace trireme
