// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tells which advertisement is clicked. Nearly all of the model is a table with a vector for each
// category, twelve million of them, which parameter servers hold: a worker pulls the rows that its
// batch needs, and pushes their gradients.
//
// Run alone:       ./09_parameter_server [--consistency bounded(4)] [--small | --log FILE FILE]
// Run on servers:  trireme launch --servers 2 --workers 4 -- ./09_parameter_server
// Worker 0 prints:  step 100  loss 0.403, ...
//                   held out: area under the curve 0.807, and 0.811 is what the rule allows
//                   the servers hold 12207144 rows

#include <torch/nn.h>

#include <cstdio>

#include "examples/support/auc.h"
#include "examples/support/click_data.h"
#include "examples/support/distinct_rows.h"
#include "examples/support/dlrm.h"
#include "examples/support/rank_share.h"
#include "trireme/base/error.h"
#include "trireme/optim/schedule.h"
#include "trireme/train/parameter_server_job.h"
#include "trireme/train/served_tensors.h"

using namespace trireme;
using namespace trireme::examples;

// The area under the curve on what is held out.
double score(Dlrm& model, ps::Worker& worker, const ClickStream& held_out) {
  const torch::NoGradGuard no_gradients;
  Auc auc;
  while (const auto batch = held_out()) {
    const auto distinct = distinct_rows(batch->categories);
    const auto rows = spread(pull_rows(worker, 0, distinct.ids), distinct);
    auc.add(model(batch->numbers, rows), batch->labels);
  }
  return auc.value();
}

int main(int argc, char** argv) try {
  share_cores();
  torch::manual_seed(1);
  const ServedJob job;
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto consistency = take_option(arguments, "--consistency").value_or("sync");
  const ClickData clicks = open_clicks(arguments, job.worker().rank, job.num_workers());
  Dlrm model(DlrmOptions{});

  ps::JobLayout layout;  // what the servers hold
  layout.consistency = ps::Consistency::parse(consistency);
  layout.dense = dense_layout(make_layout(*model), {.name = "adam"});
  layout.sparse.tables = {{.name = "categories",
                           .width = DlrmOptions{}.width,
                           .init_scale = 0.1,
                           .optimizer = {.name = "sgd", .momentum = 0}}};
  layout.sparse.slices = 16;
  ps::Worker worker(job.worker(), layout);
  FlatParameters flat = lay_into(worker, *model);
  if (worker.rank() == 0) worker.wait(worker.init());
  worker.wait(worker.pull());
  // Who died and was started again goes on where the others are.
  for (auto step = worker.clock(); step > 0; --step) clicks.train();

  const optim::ScheduleConfig falling = {0.008, "inverse_sqrt", 50};
  while (const auto batch = clicks.train()) {
    const auto distinct = distinct_rows(batch->categories);
    const auto rows = spread(pull_rows(worker, 0, distinct.ids), distinct).requires_grad_();
    flat.zero_grad();
    const auto loss = torch::binary_cross_entropy_with_logits(
        model(batch->numbers, rows), batch->labels, {}, {}, torch::Reduction::Sum);
    loss.backward();
    const double rate = learning_rate_at(falling, worker.clock(), worker.clock() + 1);
    // The servers take the mean over the samples of a step, whoever had them.
    const auto samples = static_cast<double>(batch->labels.size(0));
    worker.push({.learning_rate = rate, .weight = samples, .then_pull = true});
    push_rows(worker, 0, distinct.ids, row_gradients(rows.grad(), distinct),
              {.learning_rate = 5 * rate,
               .gradient_scale = layout.consistency.sums ? double(clicks.batch) : samples,
               .weight = samples});
    worker.wait_all();
    worker.end_step();
    if (worker.clock() % 100 == 0 && worker.rank() == 0)
      std::printf("step %ld  loss %.3f\n", worker.clock(), loss.item().toDouble() / samples);
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
