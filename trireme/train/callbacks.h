// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Callbacks of Model::fit(): what happens after each epoch.
//
//   model.fit(data, {.epochs = 50, .validation = test, .callbacks = {
//       EarlyStopping({.patience = 3}),
//       ModelCheckpoint({.folder = "runs/first"}),
//       LambdaCallback([](Model&, const EpochEnd& end) { ... })}});
//
// Every rank has its own and calls it with the same logs; one that calls collective functions of
// the model must do so on all, while one that stops training stops all. What shall happen once
// wants `if (model.strategy().rank() == 0)`.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/train/spread_model.h"

namespace trireme {

class Model;

// Values by name, in the order in which they are told.
class Logs {
 public:
  void add(std::string name, double value) { values_.emplace_back(std::move(name), value); }
  // Throws ConfigError, with the names that there are.
  double at(std::string_view name) const;
  const std::vector<std::pair<std::string, double>>& values() const { return values_; }

  bool operator==(const Logs&) const = default;

 private:
  std::vector<std::pair<std::string, double>> values_;
};

struct EpochEnd {
  std::int64_t epoch;  // from 1
  std::int64_t epochs;
  const Logs& logs;
};

class Callback {
 public:
  virtual ~Callback() = default;
  virtual void on_train_begin(Model&) {}
  virtual void on_epoch_end(Model& model, const EpochEnd& end) = 0;
  virtual void on_train_end(Model&) {}
};

// A callback as FitOptions keeps it: made of any, or of one that the caller wants back.
class AnyCallback {
 public:
  template <std::derived_from<Callback> C>
  AnyCallback(C callback)  // NOLINT(google-explicit-constructor): lists of callbacks read as such
      : callback_(std::make_shared<C>(std::move(callback))) {}
  AnyCallback(std::shared_ptr<Callback> callback)  // NOLINT(google-explicit-constructor)
      : callback_(std::move(callback)) {}

  Callback& get() const { return *callback_; }

 private:
  std::shared_ptr<Callback> callback_;
};

class LambdaCallback : public Callback {
 public:
  using Function = std::function<void(Model& model, const EpochEnd& end)>;
  explicit LambdaCallback(Function on_epoch_end) : function_(std::move(on_epoch_end)) {}
  void on_epoch_end(Model& model, const EpochEnd& end) override { function_(model, end); }

 private:
  Function function_;
};

// "Epoch  3/10  loss 0.6123  accuracy 0.6600", on rank 0's stdout; FitOptions::progress adds one.
class ProgressLines : public Callback {
 public:
  void on_epoch_end(Model& model, const EpochEnd& end) override;
};
std::string progress_line(const EpochEnd& end);

// Which of a run's epochs is the best, by one of its logs.
struct Monitor {
  std::string name = "val_loss";
  bool larger_is_better = false;
  double min_delta = 0;  // what an epoch must be better by to count

  bool is_better(double value, const std::optional<double>& best) const;
};

struct EarlyStoppingOptions {
  Monitor monitor = {};
  std::int64_t patience = 0;  // epochs without a better one that are borne; one more ends training
  bool restore_best_weights = false;
};

class EarlyStopping : public Callback {
 public:
  // Throws ConfigError for a negative patience.
  explicit EarlyStopping(EarlyStoppingOptions options = {});
  void on_train_begin(Model&) override;
  void on_epoch_end(Model& model, const EpochEnd& end) override;
  void on_train_end(Model& model) override;

 private:
  EarlyStoppingOptions options_;
  std::optional<double> best_;
  std::int64_t worse_epochs_ = 0;
  SpreadModel::NamedTensors best_weights_;  // on rank 0
};

struct ModelCheckpointOptions {
  std::string folder;
  std::optional<Monitor> best_only = std::nullopt;  // else every epoch
  std::int64_t keep = 3;                            // of the newest
};

// The weights, as Model::save_weights() does, in <folder>/step-<epoch>.
class ModelCheckpoint : public Callback {
 public:
  // Throws ConfigError for no folder or keep < 1.
  explicit ModelCheckpoint(ModelCheckpointOptions options);
  void on_epoch_end(Model& model, const EpochEnd& end) override;

 private:
  ModelCheckpointOptions options_;
  std::optional<double> best_;
};

}  // namespace trireme
