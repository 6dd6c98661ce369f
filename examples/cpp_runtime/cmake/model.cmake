# Where the model is. A project without one, such as a fresh checkout of the example, has edgetk write it, with its test data.

file(GLOB EDGETK_MODEL "${CMAKE_CURRENT_SOURCE_DIR}/model/*.onnx")
if(NOT EDGETK_MODEL)
  file(STRINGS "${CMAKE_CURRENT_SOURCE_DIR}/model.txt" name)
  find_program(EDGETK edgetk)
  if(NOT EDGETK)
    message(FATAL_ERROR "the model: must be in model/, got none; install edgetk and run: "
                        "edgetk export ${name} --cpp ${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  message(STATUS "The model: edgetk export ${name} --cpp (once)")
  execute_process(COMMAND "${EDGETK}" export "${name}" --cpp "${CMAKE_CURRENT_SOURCE_DIR}" COMMAND_ERROR_IS_FATAL ANY)
  file(GLOB EDGETK_MODEL "${CMAKE_CURRENT_SOURCE_DIR}/model/*.onnx")
endif()

list(LENGTH EDGETK_MODEL graphs)
if(NOT graphs EQUAL 1)
  list(JOIN EDGETK_MODEL " and " graphs)
  message(FATAL_ERROR "the model: must be the only graph in model/, got ${graphs}; delete the one of another model")
endif()
