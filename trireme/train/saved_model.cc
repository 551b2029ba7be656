// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/saved_model.h"

#include "trireme/base/error.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/train/model_state.h"
#include "trireme/train/state_files.h"

namespace trireme {
namespace {

Tokenizer checkpoint_tokenizer(const Checkpoint& checkpoint) {
  try {
    return Tokenizer::parse(checkpoint.file(kTokenizerFile),
                            checkpoint.path() + "/" + kTokenizerFile);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
}

}  // namespace

SavedModel load_saved_model(const std::string& path, SavedWeights weights, const ChoosePart& part) {
  const Checkpoint checkpoint = Checkpoint::open(resolve_checkpoint(path));
  Tokenizer tokenizer = checkpoint_tokenizer(checkpoint);
  const nn::ModelConfig config = checkpoint_model_config(checkpoint);
  check_checkpoint_fits(checkpoint, config, tokenizer.hash());
  nn::Transformer model(config, part ? part(config) : nn::TransformerPart());
  FlatParameters flat(*model, at::kFloat);
  const bool average = weights == SavedWeights::kAverage;
  if (average && !checkpoint.state().contains(kAverageUpdatesKey)) {
    throw_error<CheckpointError>(
        "{} holds no average of the weights: its run had train.average_decay 0; leave --average "
        "out",
        checkpoint.path());
  }
  load_weights(checkpoint, flat.layout(), flat.data(), average ? kAverageFile : kModelFile,
               !model->is_whole());
  load_router_bias(checkpoint, *model, !model->is_whole());
  return {checkpoint.path(), checkpoint.step(), std::move(model), std::move(tokenizer)};
}

}  // namespace trireme
