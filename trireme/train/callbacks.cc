// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/callbacks.h"

#include <fmt/ranges.h>

#include <cstdio>

#include "trireme/base/error.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/train/model.h"

namespace trireme {

double Logs::at(std::string_view name) const {
  std::vector<std::string> names;
  for (const auto& [key, value] : values_) {
    if (key == name) return value;
    names.push_back(key);
  }
  throw_error<ConfigError>("the logs have no {}; they have {}", name, fmt::join(names, ", "));
}

std::string progress_line(const EpochEnd& end) {
  const std::size_t width = std::to_string(end.epochs).size();
  std::string line = fmt::format("Epoch {:>{}}/{}", end.epoch, width, end.epochs);
  for (const auto& [name, value] : end.logs.values()) {
    line += fmt::format("  {} {:.4f}", name, value);
  }
  return line;
}

void ProgressLines::on_epoch_end(Model& model, const EpochEnd& end) {
  if (model.strategy().rank() != 0) return;
  std::puts(progress_line(end).c_str());
  std::fflush(stdout);
}

bool Monitor::is_better(double value, const std::optional<double>& best) const {
  if (!best) return value == value;  // not NaN
  return larger_is_better ? value > *best + min_delta : value < *best - min_delta;
}

EarlyStopping::EarlyStopping(EarlyStoppingOptions options) : options_(std::move(options)) {
  if (options_.patience < 0) {
    throw_error<ConfigError>("early stopping with a patience of {} epochs", options_.patience);
  }
}

void EarlyStopping::on_train_begin(Model&) {
  best_.reset();
  worse_epochs_ = 0;
  best_weights_.clear();
}

void EarlyStopping::on_epoch_end(Model& model, const EpochEnd& end) {
  const double value = end.logs.at(options_.monitor.name);
  if (options_.monitor.is_better(value, best_)) {
    best_ = value;
    worse_epochs_ = 0;
    if (!options_.restore_best_weights) return;
    best_weights_ = model.weights();
    for (auto& [name, tensor] : best_weights_) tensor = tensor.detach().clone();
  } else if (++worse_epochs_ > options_.patience) {
    model.stop_training();
  }
}

void EarlyStopping::on_train_end(Model& model) {
  if (options_.restore_best_weights && best_) model.set_weights(best_weights_);
}

ModelCheckpoint::ModelCheckpoint(ModelCheckpointOptions options) : options_(std::move(options)) {
  if (options_.folder.empty()) throw_error<ConfigError>("checkpoints of the model need a folder");
  if (options_.keep < 1) {
    throw_error<ConfigError>("{} checkpoints to keep: at least 1 is needed", options_.keep);
  }
}

void ModelCheckpoint::on_epoch_end(Model& model, const EpochEnd& end) {
  if (options_.best_only) {
    const double value = end.logs.at(options_.best_only->name);
    if (!options_.best_only->is_better(value, best_)) return;
    best_ = value;
  }
  model.save_weights(options_.folder, end.epoch);
  if (model.strategy().rank() == 0) prune_checkpoints(options_.folder, options_.keep);
}

}  // namespace trireme
