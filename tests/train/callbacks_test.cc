// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/callbacks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/train/model.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using testing::run_threads;

Logs logs_of(double val_loss) {
  Logs logs;
  logs.add("loss", 0.25);
  logs.add("val_loss", val_loss);
  return logs;
}

TEST(Logs, NameWhatTheyHave) {
  EXPECT_EQ(logs_of(0.5).at("val_loss"), 0.5);
  try {
    logs_of(0.5).at("accuracy");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "the logs have no accuracy; they have loss, val_loss");
  }
}

TEST(ProgressLines, AreKerasLike) {
  EXPECT_EQ(progress_line({3, 10, logs_of(1.23456)}), "Epoch  3/10  loss 0.2500  val_loss 1.2346");
  EXPECT_EQ(progress_line({3, 9, logs_of(2)}), "Epoch 3/9  loss 0.2500  val_loss 2.0000");
}

TEST(Monitor, KnowsWhichIsBetter) {
  const Monitor loss{.min_delta = 0.1};
  EXPECT_TRUE(loss.is_better(3, std::nullopt));
  EXPECT_FALSE(loss.is_better(std::nan(""), std::nullopt));
  EXPECT_TRUE(loss.is_better(0.8, 1));
  EXPECT_FALSE(loss.is_better(0.95, 1));
  EXPECT_FALSE(loss.is_better(std::nan(""), 1));
  const Monitor accuracy{.name = "accuracy", .larger_is_better = true};
  EXPECT_TRUE(accuracy.is_better(0.8, 0.7));
  EXPECT_FALSE(accuracy.is_better(0.7, 0.7));
}

// Replaces what fit() has measured by values of the test's, before the callback sees them.
class Scripted : public Callback {
 public:
  Scripted(std::shared_ptr<Callback> callback, std::vector<double> values)
      : callback_(std::move(callback)), values_(std::move(values)) {}
  void on_train_begin(Model& model) override { callback_->on_train_begin(model); }
  void on_epoch_end(Model& model, const EpochEnd& end) override {
    const Logs logs = logs_of(values_.at(static_cast<std::size_t>(end.epoch - 1)));
    callback_->on_epoch_end(model, {end.epoch, end.epochs, logs});
  }
  void on_train_end(Model& model) override { callback_->on_train_end(model); }

 private:
  std::shared_ptr<Callback> callback_;
  std::vector<double> values_;
};

// Fits five epochs on two ranks and returns how many there were; after each, and at the end, the
// model's weight is noted.
struct Fit {
  std::size_t epochs = 0;
  std::vector<float> weights;
};
Fit fit_with(const EarlyStoppingOptions& options, const std::vector<double>& values) {
  Fit result;
  run_threads(2, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    torch::nn::Linear line(1, 1);
    Model model(scope, line);
    model.compile(Sgd({.learning_rate = 0.1}), MeanSquaredError());
    Fit own;
    const auto note = [&] { own.weights.push_back(line->weight.item<float>()); };
    FitOptions fit{.epochs = 5, .batch_size = 5, .progress = false};
    fit.callbacks = {Scripted(std::make_shared<EarlyStopping>(options), values),
                     LambdaCallback([&](Model&, const EpochEnd&) { note(); })};
    const at::Tensor x = torch::arange(7, torch::kFloat).reshape({7, 1}) / 7;
    own.epochs = model.fit({x, 3 * x}, fit).epochs.size();
    note();
    EXPECT_EQ(own.weights.size(), own.epochs + 1);
    if (group.rank() == 1) result = own;  // the rank that keeps no weights
  });
  return result;
}

TEST(EarlyStopping, BearsPatienceEpochsWithoutABetterOne) {
  EXPECT_EQ(fit_with({.patience = 0}, {3, 2, 2, 1, 1}).epochs, 3U);
  EXPECT_EQ(fit_with({.patience = 1}, {3, 2, 2, 1, 1}).epochs, 5U);
  EXPECT_EQ(fit_with({.patience = 1}, {3, 4, 5, 1, 1}).epochs, 3U);
  EXPECT_EQ(fit_with({.patience = 4}, {3, 4, 5, 6, 7}).epochs, 5U);
}

TEST(EarlyStopping, RestoresTheBestWeights) {
  const Fit restored = fit_with({.patience = 2, .restore_best_weights = true}, {3, 1, 5, 6, 7});
  EXPECT_EQ(restored.weights.back(), restored.weights[1]);
  EXPECT_NE(restored.weights.back(), restored.weights[3]);
  const Fit left = fit_with({.patience = 2}, {3, 1, 5, 6, 7});
  EXPECT_EQ(left.weights.back(), left.weights[left.epochs - 1]);
}

TEST(Callbacks, RefuseOptionsOutOfRange) {
  EXPECT_THROW(EarlyStopping({.patience = -1}), ConfigError);
  EXPECT_THROW(ModelCheckpoint({.folder = ""}), ConfigError);
  EXPECT_THROW(ModelCheckpoint({.folder = "x", .keep = 0}), ConfigError);
}

}  // namespace
}  // namespace trireme
