// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_tensors.h"

#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <vector>

#include "trireme/base/error.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/train/parameter_server_job.h"

namespace trireme {
namespace {

// A job of this process alone: a linear layer, and a table of width 3 that begins with zeros.
struct ServedTensors : ::testing::Test {
  ServedTensors() : model(5, 2) {}

  ps::JobLayout layout() const {
    ps::JobLayout layout;
    layout.dense = dense_layout(make_layout(*model), {.name = "sgd", .momentum = 0});
    layout.sparse.tables = {
        {.name = "rows", .width = 3, .init = "zeros", .optimizer = {.name = "sgd", .momentum = 0}}};
    layout.sparse.slices = 4;
    return layout;
  }

  torch::nn::Linear model;
  const ServedJob job;
};

TEST_F(ServedTensors, AModuleLivesInTheWorkersBuffers) {
  ps::Worker worker(job.worker(), layout());
  const at::Tensor before = model->weight.detach().clone();
  const at::Tensor bias = model->bias.detach().clone();
  FlatParameters flat = lay_into(worker, *model);
  flat.check_views();
  EXPECT_TRUE(torch::equal(model->weight, before));
  worker.wait(worker.init());

  flat.zero_grad();
  const at::Tensor x = torch::arange(5, torch::kFloat);
  model->forward(x).sum().backward();  // the gradient of each row is x, that of the bias 1
  worker.wait(worker.push({.learning_rate = 0.5, .then_pull = true}));
  worker.end_step();
  EXPECT_TRUE(torch::equal(model->weight, before - 0.5 * x));
  EXPECT_TRUE(torch::equal(model->bias, bias - 0.5));
  worker.leave();
}

TEST_F(ServedTensors, RowsGoAndComeAsTensors) {
  ps::Worker worker(job.worker(), layout());
  worker.wait(worker.init());
  const at::Tensor ids = torch::tensor({7, -1, 1'000'000'007}, torch::kLong);
  // Not contiguous, and given up before the push is done.
  at::Tensor gradients = torch::arange(9, torch::kFloat).view({3, 3}).t();
  const at::Tensor expected = -0.25 * gradients.clone();
  const ps::Timestamp pushed = push_rows(worker, 0, ids, gradients, {.learning_rate = 0.25});
  gradients.zero_();
  worker.wait(pushed);
  worker.end_step();
  const at::Tensor twice = torch::tensor({-1, 8, 7, -1}, torch::kLong);
  EXPECT_TRUE(
      torch::equal(pull_rows(worker, 0, twice),
                   torch::stack({expected[1], torch::zeros({3}), expected[0], expected[1]})));
  EXPECT_EQ(worker.report().rows, 3);
  worker.leave();
}

TEST_F(ServedTensors, RefusesWhatDoesNotFit) {
  ps::Worker worker(job.worker(), layout());
  const at::Tensor ids = torch::tensor({7, 8}, torch::kLong);
  EXPECT_THROW(pull_rows(worker, 1, ids), ShapeError);
  EXPECT_THROW(pull_rows(worker, 0, ids.view({1, 2})), ShapeError);
  EXPECT_THROW(pull_rows(worker, 0, ids.to(torch::kInt)), ShapeError);
  EXPECT_THROW(push_rows(worker, 0, ids, torch::zeros({2, 4}), {}), ShapeError);
  EXPECT_THROW(push_rows(worker, 0, ids, torch::zeros({2, 3}, torch::kDouble), {}), ShapeError);
  torch::nn::Linear other(100, 100);
  EXPECT_THROW(lay_into(worker, *other), ShapeError);
  worker.leave();
}

}  // namespace
}  // namespace trireme
