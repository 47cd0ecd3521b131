"""What a soup is made of: models on disk as readers of tensors, compared, merged and written as folders.

No model is built: of a 7B model no more is in memory than a few blocks of rows.
"""

from embedtrain.model.ingredients.alike import check_alike
from embedtrain.model.ingredients.opening import Ingredient, open_base, open_ingredient
from embedtrain.model.ingredients.writing import write_merged

__all__ = ["Ingredient", "check_alike", "open_base", "open_ingredient", "write_merged"]
