/// Everything of the runner: models and streams, the front end, detections, sound files.
#pragma once

#include "edgetk/detector.hpp"
#include "edgetk/model.hpp"
#include "edgetk/wav.hpp"
