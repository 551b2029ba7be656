// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/speech.h"

#include <espeak-ng/speak_lib.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

constexpr std::int64_t kWindow = 512, kHop = 256;

int take_samples(short* wave, int count, espeak_EVENT* event) {
  auto* samples = static_cast<std::vector<float>*>(event->user_data);
  for (int i = 0; wave != nullptr && i < count; ++i) {
    samples->push_back(static_cast<float>(wave[i]) / 32768.0F);
  }
  return 0;
}

// What is louder than a hundredth of the loudest, and what lies between: eSpeak adds silence.
at::Tensor without_silence(const at::Tensor& samples) {
  const at::Tensor loud = samples.abs().gt(0.01 * samples.abs().max()).nonzero();
  if (loud.numel() == 0) return samples;
  const auto first = loud.min().item<std::int64_t>(), last = loud.max().item<std::int64_t>();
  return samples.slice(0, first, last + 1);
}

// [kWindow, kWindow / 2 + 1] each: a windowed frame times them is its Fourier transform.
struct Waves {
  at::Tensor cosines, sines;
};

Waves windowed_waves() {
  const at::Tensor time = at::arange(kWindow, at::kDouble).unsqueeze(1);
  const at::Tensor turns = time * at::arange(kWindow / 2 + 1, at::kDouble) / kWindow;
  const at::Tensor window = 0.5 - 0.5 * (time * (2 * std::numbers::pi / kWindow)).cos();
  return {(window * (turns * (2 * std::numbers::pi)).cos()).to(at::kFloat),
          (window * (turns * (2 * std::numbers::pi)).sin()).to(at::kFloat)};
}

double mel(double hertz) { return 2595 * std::log10(1 + hertz / 700); }

// [kWindow / 2 + 1, kSpeechBands]: triangles, evenly spaced on the mel scale.
at::Tensor mel_bands(int rate) {
  constexpr double kLowest = 80, kHighest = 7600;
  const double step = (mel(kHighest) - mel(kLowest)) / (kSpeechBands + 1);
  const at::Tensor bands = at::zeros({kWindow / 2 + 1, kSpeechBands}, at::kFloat);
  auto weight = bands.accessor<float, 2>();
  for (std::int64_t bin = 0; bin <= kWindow / 2; ++bin) {
    const double place = (mel(static_cast<double>(bin * rate) / kWindow) - mel(kLowest)) / step;
    for (std::int64_t band = 0; band < kSpeechBands; ++band) {
      const double distance = std::fabs(place - static_cast<double>(band + 1));
      weight[bin][band] = static_cast<float>(std::max(0.0, 1 - distance));
    }
  }
  return bands;
}

}  // namespace

std::vector<std::string> training_voices() {
  return {"en-us+m1", "en-us+m3", "en-us+m4", "en-us+m6", "en-us+f1", "en-us+f2",
          "en-us+f4", "en-us+f5", "en+m1",    "en+m3",    "en+m4",    "en+m7",
          "en+f1",    "en+f2",    "en+f4",    "en+f5"};
}

std::vector<std::string> held_out_voices() {
  return {"en-us+m2", "en-us+m5", "en-us+f3", "en-gb-scotland+m2", "en-gb-scotland+f3"};
}

std::vector<std::string> spoken_words() {
  return {"zero",   "one",    "two",   "three", "four",     "five",   "six",   "seven",
          "eight",  "nine",   "ocean", "river", "mountain", "yellow", "green", "purple",
          "window", "garden", "horse", "tiger", "bread",    "sugar",  "paper", "music"};
}

Speaker::Speaker()
    : rate_(espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, nullptr, espeakINITIALIZE_DONT_EXIT)) {
  if (rate_ <= 0) {
    throw_error<Error>("eSpeak NG does not start (install espeak-ng-data): its error {}", rate_);
  }
  espeak_SetSynthCallback(&take_samples);
}

Speaker::~Speaker() { espeak_Terminate(); }

// f32 [n], between -1 and 1.
at::Tensor Speaker::say(const std::string& text, int words_a_minute) const {
  espeak_SetParameter(espeakRATE, words_a_minute, 0);
  std::vector<float> samples;
  if (espeak_Synth(text.c_str(), text.size() + 1, 0, POS_CHARACTER, 0, espeakCHARS_UTF8, nullptr,
                   &samples) != EE_OK ||
      samples.empty()) {
    throw_error<DataError>("eSpeak NG does not say '{}'", text);
  }
  return at::tensor(samples);
}

std::vector<Spoken> Speaker::speak(const SpeechOptions& options) const {
  std::vector<Spoken> all;
  for (const std::string& voice : options.voices) {
    if (espeak_SetVoiceByName(voice.c_str()) != EE_OK) {
      throw_error<DataError>("eSpeak NG has no voice {}: espeak-ng --voices lists them", voice);
    }
    for (const int speed : options.speeds) {
      for (const std::string& word : spoken_words()) {
        all.push_back({word, log_mel(without_silence(say(word, speed)), rate_)});
      }
    }
  }
  return all;
}

at::Tensor log_mel(const at::Tensor& samples, int rate) {
  const std::int64_t count = samples.size(0);
  const at::Tensor padded = at::constant_pad_nd(samples, {0, kWindow - count % kHop});
  const at::Tensor frames = padded.unfold(0, kWindow, kHop);
  const Waves waves = windowed_waves();
  const at::Tensor power = frames.mm(waves.cosines).square() + frames.mm(waves.sines).square();
  const at::Tensor energy = power.mm(mel_bands(rate)).add(1e-6).log();
  return (energy - energy.mean(0, /*keepdim=*/true)) /
         (energy.std(0, /*unbiased=*/false, /*keepdim=*/true) + 1e-3);
}

}  // namespace trireme::examples
