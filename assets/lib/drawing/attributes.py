"""The attributes of the people in the drawn faces, and the random choices that decide them."""

import numpy as np

from assets.lib.drawing.colors import HAIR_RGB, ITA_EDGES

DRAWN_ATTRIBUTES = (
    "Male",
    "Young",
    "Smiling",
    "Mouth_Slightly_Open",
    "Eyeglasses",
    "Heavy_Makeup",
    "Wearing_Lipstick",
    "Rosy_Cheeks",
    "Black_Hair",
    "Brown_Hair",
    "Blond_Hair",
    "Gray_Hair",
    "Bald",
    "Receding_Hairline",
    "Bangs",
    "Straight_Hair",
    "Wavy_Hair",
    "Bushy_Eyebrows",
    "No_Beard",
    "Mustache",
    "Goatee",
)
SHORT, BOB, LONG, TIED, AFRO = range(5)  # hairstyles
CLEAN_SHAVEN, STUBBLE, MUSTACHE, GOATEE, FULL_BEARD = range(5)


class Chance:
    """Random choices for n people, each made with the next columns of a table of uniforms.

    fixed: {attribute: whether everybody has it}.
    """

    def __init__(self, table, fixed):
        self.columns = iter(table.T)
        self.fixed = fixed

    def uniform(self, low=0.0, high=1.0):
        return low + (high - low) * next(self.columns)

    def bell(self, mean, width):
        """Triangular distribution on mean ± width."""
        return mean + width * (next(self.columns) + next(self.columns) - 1)

    def flag(self, attribute, probability):
        """Who has an attribute: bool, (n,)."""
        has = next(self.columns) < probability
        if attribute in self.fixed:
            return np.full_like(has, bool(self.fixed[attribute]))
        return has

    def choice(self, weights, attributes=None):
        """The index of one option each, by weight, or as fixed by the options' attributes.

        Adds Gumbel noise to each log weight, so that a change of one weight only moves people to
        that option or away from it.
        """
        scores = []
        for weight, attribute in zip(weights, attributes or [None] * len(weights)):
            gumbel = -np.log(-np.log(next(self.columns) + 1e-12))
            scores.append(np.log(weight + 1e-9) + gumbel + self._preference(attribute))
        return np.argmax(scores, axis=0)

    def _preference(self, attribute):
        """How much an option's score rises or falls because its attribute is fixed."""
        if attribute not in self.fixed:
            return 0
        return 1000 if self.fixed[attribute] else -1000

    def pick(self, palette):
        """One color of a palette each, (n, 3)."""
        index = (self.uniform() * len(palette)).astype(int)
        return np.array(palette)[index]

    def vary(self, colors, width=0.3):
        """Colors (n, 3) with a tinge, and lighter or darker by up to `width`."""
        tinge = np.stack([self.bell(1, 0.06) for _ in range(3)], axis=1)
        brightness = self.bell(1, width)[:, None]
        return (colors * tinge * brightness).clip(0.02, 1)


def imagine_character(chance, people):
    """Skin tone, sex, age, expression and makeup, as loosely tied as in life."""
    ita = np.interp(6 * chance.uniform(), range(7), ITA_EDGES)
    male = chance.flag("Male", 0.46)
    young = chance.flag("Young", np.where(male, 0.69, 0.81))
    smiling = chance.flag("Smiling", np.where(male, 0.42, 0.54))
    mouth_open = chance.flag("Mouth_Slightly_Open", np.where(smiling, 0.75, 0.18))
    eyeglasses = chance.flag("Eyeglasses", np.where(young, 0.06, 0.19))
    makeup = chance.flag("Heavy_Makeup", np.where(male, 0.02, 0.56 + 0.14 * young))
    if "Heavy_Makeup" in chance.fixed:
        lipstick = chance.flag("Wearing_Lipstick", makeup * 1.0)
    else:
        lipstick = chance.flag("Wearing_Lipstick", np.where(makeup, 0.95, 0.12 * ~male))
    return dict(
        ita=ita,
        Male=male,
        Young=young,
        Smiling=smiling,
        Mouth_Slightly_Open=mouth_open,
        Eyeglasses=eyeglasses,
        Heavy_Makeup=makeup,
        Wearing_Lipstick=lipstick,
        Rosy_Cheeks=chance.flag("Rosy_Cheeks", np.where(makeup, 0.25, 0.05)),
        Bushy_Eyebrows=chance.flag("Bushy_Eyebrows", np.where(male, 0.25, 0.06)),
    )


def imagine_hairline(chance, people):
    """Bald, receding, or bangs. Nobody goes bald by chance where hair is asked for."""
    male, young = people["Male"], people["Young"]
    needs_hair = *HAIR_RGB, "Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline"
    asked = any(chance.fixed.get(attribute) for attribute in needs_hair)
    probability = np.where(male, np.where(young, 0.03, 0.2), 0.002)
    bald = chance.flag("Bald", (not asked) * probability)
    probability = np.where(male, np.where(young, 0.06, 0.35), 0.02)
    receding = chance.flag("Receding_Hairline", probability)
    bangs = chance.flag("Bangs", np.where(male, 0.07, 0.20) * ~receding) & ~bald
    return dict(Bald=bald, Bangs=bangs, Receding_Hairline=receding & ~bald & ~bangs)


def imagine_hair_color(chance, people):
    """The natural color, most often dark on dark skin and gray on old people."""
    pale = np.interp(people["ita"], [-20, 50], [0, 1])
    weights = dict(  # in the order of HAIR_RGB
        Black_Hair=1.1 - 0.8 * pale,
        Brown_Hair=0.2 + 0.35 * pale,
        Blond_Hair=0.01 + 0.34 * pale**2,
        Red_Hair=0.01 + 0.05 * pale,
        Gray_Hair=np.where(people["Young"], 0.005, 0.7),
    )
    color = chance.choice(weights.values(), weights)
    visible = {name: (color == k) & ~people["Bald"] for k, name in enumerate(weights)}
    return dict(hair_color=color, **visible)


def imagine_hairstyle(chance, people):
    """One of five styles, straight or wavy. Those with straight hair have no afro."""
    male, bald = people["Male"], people["Bald"]
    pale = np.interp(people["ita"], [-20, 50], [0, 1])
    style = chance.choice(
        [
            np.where(male, 0.84, 0.10),  # short
            np.where(male, 0.02, 0.20),  # bob
            np.where(male, 0.07, 0.50),  # long
            np.where(male, 0.01, 0.14),  # tied
            0.06 * (1.4 - pale),  # afro
        ]
    )
    if "Straight_Hair" in chance.fixed:
        probability = 1 - bool(chance.fixed["Straight_Hair"])
    else:
        probability = np.where(male, 0.25, 0.5) + (style == AFRO)
    wavy = chance.flag("Wavy_Hair", probability) & ~bald
    straight = ~wavy & ~bald
    style = np.where((style == AFRO) & straight, SHORT, style)
    return dict(style=style, Wavy_Hair=wavy, Straight_Hair=straight)


def imagine_beard(chance, people):
    """Clean-shaven, stubble, mustache, goatee or full beard, which includes a mustache."""
    full = 0.15 * bool(chance.fixed.get("Mustache", True))
    shaven, *bearded = 0.50, 0.18, 0.07, 0.10, full
    weights = [np.where(people["Male"], shaven, 1)]
    weights += [np.where(people["Male"], weight, 0) for weight in bearded]
    beard = chance.choice(weights, ["No_Beard", None, "Mustache", "Goatee", None])
    return dict(
        beard=beard,
        No_Beard=beard == CLEAN_SHAVEN,
        Mustache=(beard == MUSTACHE) | (beard == FULL_BEARD),
        Goatee=beard == GOATEE,
    )
