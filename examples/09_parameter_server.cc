// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tells which advertisement is clicked. Nearly all of the model is a table with a vector for each
// category, twelve million of them, which parameter servers hold: a worker pulls the rows that its
// batch needs, and pushes their gradients.
//
// Run alone:       ./09_parameter_server [--consistency bounded(4)] [--small | --log FILE FILE]
// Run on servers:  trireme launch --servers 2 --workers 4 -- ./09_parameter_server
// Prints, on worker 0:  step 100  loss 0.371
//                       ...
//                       held out: area under the curve 0.806, and 0.811 is what the rule allows
//                       the servers hold 12345678 rows

#include <torch/nn.h>

#include <cstdio>

#include "examples/support/auc.h"
#include "examples/support/click_data.h"
#include "examples/support/distinct_rows.h"
#include "examples/support/dlrm.h"
#include "examples/support/rank_share.h"
#include "trireme/base/error.h"
#include "trireme/optim/schedule.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/train/parameter_server_job.h"
#include "trireme/train/served_tensors.h"

using namespace trireme::examples;
using trireme::ps::Worker;

// The area under the curve on what is held out.
double score(Dlrm& model, Worker& worker, const ClickStream& held_out) {
  const torch::NoGradGuard no_gradients;
  Auc auc;
  while (const auto batch = held_out()) {
    const auto distinct = distinct_rows(batch->categories);
    const auto rows = spread(trireme::pull_rows(worker, 0, distinct.ids), distinct);
    auc.add(model(batch->numbers, rows), batch->labels);
  }
  return auc.value();
}

int main(int argc, char** argv) try {
  share_cores();
  torch::manual_seed(1);
  const trireme::ServedJob job;
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto consistency = take_option(arguments, "--consistency").value_or("sync");
  const ClickData clicks = open_clicks(arguments, job.worker().rank, job.num_workers());
  Dlrm model(DlrmOptions{});
  trireme::FlatParameters flat(*model, torch::kFloat);

  trireme::ps::JobLayout layout;  // what the servers hold
  layout.consistency = trireme::ps::Consistency::parse(consistency);
  layout.dense = trireme::dense_layout(flat, {.name = "adam"});
  layout.sparse.tables = {{.name = "categories",
                           .width = DlrmOptions{}.width,
                           .init_scale = 0.1,
                           .optimizer = {.name = "sgd", .momentum = 0}}};
  layout.sparse.slices = 16;
  Worker worker(job.worker(), layout);
  trireme::lay_into(worker, flat);
  if (worker.rank() == 0) worker.wait(worker.init());
  worker.wait(worker.pull());
  // Who died and was started again goes on where the others are.
  for (auto step = worker.clock(); step > 0; --step) clicks.train();

  const trireme::optim::ScheduleConfig schedule = {
      .learning_rate = 1, .decay = "inverse_sqrt", .warmup_steps = 50};

  while (const auto batch = clicks.train()) {
    const auto distinct = distinct_rows(batch->categories);
    const auto rows =
        spread(trireme::pull_rows(worker, 0, distinct.ids), distinct).requires_grad_();
    flat.zero_grad();
    const auto loss = torch::binary_cross_entropy_with_logits(
        model(batch->numbers, rows), batch->labels, {}, {}, torch::Reduction::Sum);
    loss.backward();
    const double rate = learning_rate_at(schedule, worker.clock(), worker.clock() + 1);
    // The servers take the mean over the samples of a step, whoever had them.
    const auto samples = static_cast<double>(batch->labels.size(0));
    worker.push({.learning_rate = 0.008 * rate, .weight = samples, .then_pull = true});
    trireme::push_rows(worker, 0, distinct.ids, row_gradients(rows.grad(), distinct),
                       {.learning_rate = 0.04 * rate,
                        .gradient_scale = layout.consistency.sums ? double(clicks.batch) : samples,
                        .weight = samples});
    worker.wait_all();
    worker.end_step();
    if (worker.clock() % 100 == 0 && worker.rank() == 0) {
      std::printf("step %ld  loss %.3f\n", worker.clock(), loss.item().toDouble() / samples);
      std::fflush(stdout);
    }
  }
  if (worker.rank() == 0) {
    worker.wait_for_others_to_leave();
    worker.wait(worker.pull());
    std::printf("held out: area under the curve %.3f", score(model, worker, clicks.held_out));
    if (clicks.reachable) std::printf(", and %.3f is what the rule allows", *clicks.reachable);
    std::printf("\nthe servers hold %ld rows\n", worker.report().rows);
  }
  worker.leave();
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
