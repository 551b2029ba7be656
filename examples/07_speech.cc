// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A small convolutional net that writes down words which eSpeak NG says in voices that it has never
// heard: connectionist temporal classification (Graves et al. 2006).
//
// Run alone:           ./07_speech
// Run on two ranks:    torchrun --no-python --nproc-per-node 2 ./07_speech
// Prints, on rank 0:   step 100  loss 2.60
//                      ...
//                      voices never heard: 10.1 % of the letters wrong

#include <torch/nn.h>
#include <torch/optim.h>

#include <cstdio>
#include <vector>

#include "examples/support/rank_share.h"
#include "examples/support/speech.h"
#include "examples/support/transcript.h"
#include "trireme/base/error.h"
#include "trireme/launch/init.h"
#include "trireme/parallel/data/replica.h"

namespace nn = torch::nn;
using namespace trireme::examples;
constexpr std::int64_t kSteps = 300, kBatch = 32, kChannels = 96, kLetters = 26;

nn::Sequential make_net() {
  const auto conv = [](std::int64_t in, std::int64_t stride) {
    return nn::Conv1d(nn::Conv1dOptions(in, kChannels, 5).stride(stride).padding(2));
  };
  const auto norm = [] { return nn::GroupNorm(nn::GroupNormOptions(8, kChannels)); };
  return nn::Sequential(conv(kSpeechBands, 2), norm(), nn::ReLU(), conv(kChannels, 1), norm(),
                        nn::ReLU(), conv(kChannels, 1), norm(), nn::ReLU(),
                        nn::Conv1d(nn::Conv1dOptions(kChannels, kLetters + 1, 1)));
}

struct Batch {
  torch::Tensor sound, frames;    // [B, bands, T], zeros at the end; [B] after the net
  torch::Tensor letters, counts;  // [B, S], 1 for a; [B]
};

Batch batch_of(const std::vector<Spoken>& from, const torch::Tensor& numbers) {
  std::vector<torch::Tensor> sounds, texts;
  std::vector<std::int64_t> frames, counts;
  for (std::int64_t i = 0; i < numbers.size(0); ++i) {
    const Spoken& spoken = from[static_cast<std::size_t>(numbers[i].item<std::int64_t>())];
    sounds.push_back(spoken.features);
    frames.push_back((spoken.features.size(0) + 1) / 2);
    std::vector<std::int64_t> letters(spoken.text.begin(), spoken.text.end());
    texts.push_back(torch::tensor(letters) - ('a' - 1));
    counts.push_back(texts.back().size(0));
  }
  return {nn::utils::rnn::pad_sequence(sounds, true).transpose(1, 2), torch::tensor(frames),
          nn::utils::rnn::pad_sequence(texts, true), torch::tensor(counts)};
}

int main() try {
  share_cores();
  torch::manual_seed(1);
  const auto world = trireme::init();
  const Speaker speaker;
  const auto train = speaker.speak({.voices = training_voices(), .speeds = {130, 160, 190}});
  auto net = make_net();
  auto replica = trireme::replicate(*net, *world);
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(3e-3));
  const SampleShares shares(static_cast<std::int64_t>(train.size()), kBatch, *world, 1);

  for (std::int64_t step = 1; step <= kSteps; ++step) {
    const Batch batch = batch_of(train, shares.of_step(step));
    optimizer.zero_grad();
    const auto chances = net->forward(batch.sound).permute({2, 0, 1}).log_softmax(2);
    const auto loss = torch::ctc_loss(chances, batch.letters, batch.frames, batch.counts);
    replica.backward(loss, static_cast<double>(batch.frames.size(0)));
    replica.finish_gradients();
    optimizer.step();
    if (step % 100 == 0 && world->rank() == 0)
      std::printf("step %ld  loss %.2f\n", step, loss.item<double>());
  }
  if (world->rank() == 0) {
    const torch::NoGradGuard no_gradients;
    std::size_t wrong = 0, letters = 0;
    for (const Spoken& spoken :
         speaker.speak({.voices = held_out_voices(), .speeds = {145, 175}})) {
      const auto sound = spoken.features.t().unsqueeze(0);
      wrong += edits(transcript(net->forward(sound)[0].argmax(0)), spoken.text);
      letters += spoken.text.size();
    }
    std::printf("voices never heard: %.1f %% of the letters wrong\n",
                100 * static_cast<double>(wrong) / static_cast<double>(letters));
  }
  world->close();
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
