// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tells which advertisement is clicked. Nearly all of the model is a table with a vector for each
// category, twelve million of them, which parameter servers hold: a worker pulls the rows that its
// batch needs, and pushes their gradients.
// Not built yet: trireme/ps/worker.h is to come.
// Run alone:       ./09_parameter_server [--small | --log FILE FILE]
// Run on servers:  trireme launch --servers 2 --workers 2 -- ./09_parameter_server
// Prints, on worker 0:  step 100  loss 0.371
//                       ...
//                       held out: area under the curve 0.806, and 0.811 is what the rule allows

#include <torch/nn.h>

#include <cstdio>

#include "examples/support/auc.h"
#include "examples/support/click_data.h"
#include "examples/support/distinct_rows.h"
#include "examples/support/dlrm.h"
#include "examples/support/rank_share.h"
#include "trireme/base/error.h"
#include "trireme/ps/worker.h"

using namespace trireme::examples;

// The vectors of a batch's categories, [B, categories, width].
torch::Tensor pull_rows(trireme::ps::SparseTable& table, const DistinctRows& distinct) {
  const auto rows = torch::empty({distinct.ids.size(0), table.width()});
  table.pull(distinct.ids, rows);
  return spread(rows, distinct);
}

// The area under the curve on what is held out.
double score(Dlrm& model, trireme::ps::SparseTable& table, const ClickStream& held_out) {
  const torch::NoGradGuard no_gradients;
  Auc auc;
  while (const auto batch = held_out()) {
    const auto rows = pull_rows(table, distinct_rows(batch->categories));
    auc.add(model(batch->numbers, rows), batch->labels);
  }
  return auc.value();
}

int main(int argc, char** argv) try {
  share_cores();
  torch::manual_seed(1);
  auto worker = trireme::ps::Worker::join();
  const ClickData clicks = open_clicks({argv + 1, argv + argc}, worker.rank(), worker.size());
  const DlrmOptions options;
  Dlrm model(options);
  auto dense = worker.dense(*model, {.name = "adam"});
  auto table = worker.sparse_table({.name = "categories",
                                    .width = options.width,
                                    .init = "uniform",
                                    .init_scale = 0.1,
                                    .optimizer = {.name = "adagrad"}});

  for (std::int64_t step = 1; const auto batch = clicks.train(); ++step) {
    const auto distinct = distinct_rows(batch->categories);
    dense.pull();
    const auto rows = pull_rows(table, distinct).requires_grad_();
    dense.zero_gradients();
    const auto logits = model(batch->numbers, rows);
    const auto loss = torch::binary_cross_entropy_with_logits(logits, batch->labels, {}, {},
                                                              torch::Reduction::Sum);
    (loss / clicks.batch).backward();
    dense.push();
    table.push(distinct.ids, row_gradients(rows.grad(), distinct));
    worker.end_step();
    if (step % 100 == 0 && worker.rank() == 0) {
      std::printf("step %ld  loss %.3f\n", step,
                  loss.item<double>() / static_cast<double>(batch->labels.size(0)));
    }
  }
  worker.barrier();  // all have pushed their last
  if (worker.rank() == 0) {
    dense.pull();
    std::printf("held out: area under the curve %.3f", score(model, table, clicks.held_out));
    if (clicks.reachable) std::printf(", and %.3f is what the rule allows", *clicks.reachable);
    std::printf("\n");
  }
  worker.close();
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
